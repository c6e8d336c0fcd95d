"""A run with its images, and without Spark, which learning needs no more."""

import hashlib
import io
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.conftest import glyph
from tuner.base.errors import ExperimentError
from tuner.experiment.file import experiment_of
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.extraction.files import Row, write_part
from tuner.images.index import ImageSet
from tuner.images.splits import split_images
from tuner.networks.resolution import Network, resolve_network
from tuner.preparation.images import PreparedImages
from tuner.searches.incremental.work import LearnOutcome, Work
from tuner.searches.resume import EarlierSearch
from tuner.tracking import names
from tuner.tracking.runs import parent_run
from tuner.tracking.store import Tracking, open_tracking

LABELS = ("A", "o", "x")


def experiment_in(folder: Path, **learn: Any) -> Experiment:
    data = {
        "name": "letters",
        "images": "builtin:letters",
        "cache": str(folder / "cache"),
        "learn": {"backbone": "GlyphNet", "batch": 8, "epochs": 2} | learn,
    }
    return experiment_of(data, "here").for_learning()


class Letters:
    """A cache with features that no network computed, and what is known of the images."""

    def __init__(self, folder: Path, each: int, lowest: float = 0.0) -> None:
        self.folder = folder
        self.cache = FeatureCache(folder / "cache")
        spec = experiment_in(folder).search.backbone[0]
        self.network: Network = resolve_network(spec, "float32", self.cache.networks)
        self.lowest = lowest
        self.rows: list[dict[str, Any]] = []
        self.add(each)

    def add(self, each: int) -> None:
        centres = np.random.default_rng(1).uniform(1, 3, (len(LABELS), self.network.width))
        part, begin = [], len(self.rows) // len(LABELS)
        for index, label in enumerate(LABELS):
            for number in range(begin, begin + each):
                file = self.folder / f"{label}{number}.png"
                glyph(label, number).save(file)
                content = file.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                noise = np.random.default_rng(number).normal(size=self.network.width) / 4
                features = np.maximum(centres[index] + noise, 0) + self.lowest
                part.append(Row(digest, features.astype(np.float32), None))
                self.rows.append(
                    {
                        "path": file.name,
                        "label": label,
                        "label_index": index,
                        "digest": digest,
                        "bytes": len(content),
                        "content": content,
                    }
                )
        folder = self.cache.folder(self.network)
        folder.mkdir(parents=True, exist_ok=True)
        write_part(folder, part)

    def prepared(self, experiment: Experiment) -> PreparedImages:
        table = pd.DataFrame(self.rows)
        images = ImageSet(None, lambda: None, LABELS, held=table)  # type: ignore[arg-type,return-value]
        split = experiment.split
        index = table.drop(columns="content")
        parts = split_images(index, split.test, split.validation, split.validation_ratio, 42)
        quarantine = pd.DataFrame({"path": [], "label": [], "reason": []})
        networks = {self.network.name: self.network}
        return PreparedImages(images, index.assign(part=parts), quarantine, networks, 0)

    def learn(
        self, store: Tracking, experiment: Experiment, resume: EarlierSearch | None = None
    ) -> tuple[LearnOutcome | None, str]:
        console = Console(record=True, width=200, file=io.StringIO())
        with parent_run(store, "letters-learn", "learn") as run:
            run.yaml(experiment.to_yaml_dict(), names.EXPERIMENT_FILE)
            session: Any = None
            work = Work(experiment, store, run, self.cache, session, self.prepared(experiment), console)
            done = work.go_on(resume) if resume else work.start()
        return done, console.export_text()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return open_tracking("letters")


@pytest.mark.long
def test_it_learns_tests_and_registers_and_later_what_is_new(store: Tracking, tmp_path: Path) -> None:
    letters, experiment = Letters(tmp_path, 20), experiment_in(tmp_path)
    first, _ = letters.learn(store, experiment)
    assert first is not None
    assert (first.new, first.learned, first.comparison) == (39, 39, None)
    assert first.progressive is not None
    assert first.progressive > 0.6
    assert first.test.metrics["accuracy"] > 0.9
    assert first.version.alias == "champion"
    client = store.client()
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.LEARNED] == "39"
    steps = [one.step for one in client.get_metric_history(first.run_id, names.PROGRESSIVE)]
    assert steps == [16, 24, 32, 39]
    assert [one.step for one in client.get_metric_history(first.run_id, "accuracy")] == [1, 2]
    assert names.PROGRESS_CURVES in {one.path for one in client.list_artifacts(first.run_id, "charts")}
    assert not any((tmp_path / "cache" / "staging").iterdir())
    earlier = EarlierSearch(store, first.run_id, experiment, None, "FINISHED", datetime.now())

    nothing, said = letters.learn(store, experiment, earlier)
    assert nothing is None
    assert "nothing is new: all 39 images were learned before" in said

    cut = EarlierSearch(store, first.run_id, experiment, None, "KILLED", datetime.now())
    again, said = letters.learn(store, experiment, cut)
    assert "all 39 images were learned before by a run that did not end" in said
    assert again is not None
    assert (again.new, again.learned, again.progressive) == (0, 39, None)
    assert again.test.metrics == first.test.metrics
    assert client.get_run(again.run_id).data.tags[names.LEARNED] == "39"

    letters.add(3)
    second, said = letters.learn(store, experiment, earlier)
    assert second is not None
    assert "9 of 69 images were not learned yet: A 3, o 3, x 3" in said
    assert (second.new, second.learned) == (9, 48)
    assert second.comparison is not None
    assert second.comparison.champion.metrics == first.test.metrics
    assert second.comparison.images == first.test.confusion.sum() == 12
    assert str(second.version.version) == "3"
    assert client.get_run(second.run_id).data.tags[names.LEARNED] == "48"


@pytest.mark.long
def test_counts_are_refused_where_features_are_below_0(store: Tracking, tmp_path: Path) -> None:
    experiment = experiment_in(tmp_path, classifier="sklearn.MultinomialNB")
    with pytest.raises(ExperimentError, match=r"takes no negative features, and those of GlyphNet go"):
        Letters(tmp_path, 20, lowest=-1.0).learn(store, experiment)
    with pytest.raises(ExperimentError, match=r"learn\.batch is 40, and there are 39 images to learn"):
        Letters(tmp_path, 20).learn(store, experiment_in(tmp_path, batch=40))
