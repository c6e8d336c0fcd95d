"""`tuner features`: the cache is filled, and features are written for other tools."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.conftest import tuner
from tuner.base.errors import CacheError
from tuner.experiment.file import experiment_of
from tuner.searches.features import fill_cache

NAMES = ["A", "ñandú <b>", "o"]


@pytest.mark.long
def test_the_command_writes_a_file_for_each_network(letters: Path, tmp_path: Path) -> None:
    experiment = f"name: letters\nimages: {letters}\nsearch: {{backbone: [GlyphNet, GaborNet]}}\n"
    (tmp_path / "letters.yaml").write_text(experiment, encoding="utf-8")
    command = ("features", "--experiment", "letters.yaml", "--export", "out/features.h5")
    done = tuner(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert "out/features-GaborNet.h5: 60 images x 384 features of GaborNet" in done.stdout
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "features-GaborNet.h5",
        "features-GlyphNet.h5",
    ]
    with h5py.File(tmp_path / "out" / "features-GlyphNet.h5") as file:
        assert file["features"].shape == (60, 192)
        assert list(file["label_names"].asstr()) == NAMES
        for label, path in zip(file["labels"], file["paths"].asstr(), strict=True):
            assert Path(path).parent.name == NAMES[label]
        assert np.bincount(file["labels"]).tolist() == [20, 20, 20]
        assert set(file["parts"].asstr()) == {"train", "validation", "test"}
    done = tuner(tmp_path, *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "tuner: out/features-GlyphNet.h5 exists already: give --overwrite" in done.stderr
    done = tuner(tmp_path, *command, "--overwrite", "--backbone", "GaborNet")
    assert "0 images extracted" in done.stdout
    assert (tmp_path / "out" / "features.h5").is_file()


def test_a_file_that_cannot_be_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"name": "e", "images": "builtin:digits", "search": {"backbone": ["GlyphNet"]}}
    with pytest.raises(CacheError, match=r"cannot be written to features\.csv: its name must end in"):
        fill_cache(experiment_of(data, "here"), export="features.csv")
    assert list(tmp_path.iterdir()) == []
