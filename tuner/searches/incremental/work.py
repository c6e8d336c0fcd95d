"""What a run of `tuner learn` does once it has its images: stream, validate, keep, test, register."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tuner.base.columns import LABEL_INDEX
from tuner.base.errors import ExperimentError
from tuner.classifiers.heads.files import Head
from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.comparison import Comparison, compare
from tuner.evaluation.metrics import Evaluation, evaluate
from tuner.evaluation.predictions import Scored
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.learning.learner import Learner, LearnerSetting
from tuner.learning.state import Course, LearnedState, make_learner
from tuner.learning.stream import Passed, learn_stream
from tuner.models.flavor import FittedModel, log_model, write_model_files
from tuner.networks.resolution import Network
from tuner.preparation.images import PreparedImages, first_image
from tuner.registry.versions import RegisteredVersion
from tuner.reports.search import log_learning_data, log_progress, log_test
from tuner.searches.incremental.earlier import Earlier
from tuner.searches.incremental.feature_rows import FeatureRows, feature_rows, rows_to_learn
from tuner.searches.incremental.keeping import Keeper
from tuner.searches.resume import EarlierSearch
from tuner.searches.winner import facts_of, register_winner
from tuner.searches.winners_onnx import winners_onnx
from tuner.spark.sessions import DriverSession
from tuner.tracking import names
from tuner.tracking.results import TrialResult
from tuner.tracking.run_log import RunLog
from tuner.tracking.store import Tracking

_POINTS = 200  # of a stepped metric


@dataclass(frozen=True)
class LearnOutcome:
    """What learning came to.

    Attributes
    ----------
    experiment, store, run_id
        What was learned, where MLflow has it, and the run.
    params
        The network, the classifier and its parameters.
    new, learned
        How many images this run learned, and how many have been learned in all.
    progressive
        The share of images whose class was predicted before they were learned; None: there was none.
    validation
        Metrics on the validation images.
    test
        What it is worth on the test part.
    comparison
        What it was worth before (`champion`) and is now (`challenger`), on the same test images; None for a
        run that went on with none.
    version
        The registered version.
    extracted
        The images that were not cached.
    """

    experiment: Experiment
    store: Tracking
    run_id: str
    params: TrialParams
    new: int
    learned: int
    progressive: float | None
    validation: Mapping[str, float]
    test: Evaluation
    comparison: Comparison | None
    version: RegisteredVersion
    extracted: int


@dataclass(frozen=True)
class Work:
    """A run that has its images."""

    experiment: Experiment
    store: Tracking
    run: RunLog
    cache: FeatureCache
    session: DriverSession
    prepared: PreparedImages
    console: Console

    @property
    def params(self) -> TrialParams:
        """The network, the classifier and its parameters."""
        learn = self.experiment.learn
        values: Mapping[str, Any] = learn.values
        return TrialParams.of(self._network.name, learn.classifier.name, **values)

    @property
    def _network(self) -> Network:
        (network,) = self.prepared.networks.values()
        return network

    @property
    def setting(self) -> LearnerSetting:
        """What the learner is made of."""
        learn, seed = self.experiment.learn, self.experiment.search.seed
        width, classes = self._network.width, len(self.prepared.labels)
        return LearnerSetting(learn.classifier.row, learn.values, width, classes, learn.step, seed)

    @property
    def course(self) -> Course:
        """How it goes through its images, from the beginning."""
        learn = self.experiment.learn
        return Course(self.experiment.search.seed, learn.batch, learn.epochs)

    def start(self) -> LearnOutcome:
        """Learn all images of the parts that are learned."""
        rows, batch = rows_to_learn(self.prepared), self.experiment.learn.batch
        if len(rows) < batch:
            raise ExperimentError(
                f"learn.batch is {batch}, and there are {len(rows)} images to learn: lower it."
            )
        return self._learn(make_learner(self.setting), rows, self.course, None)

    def go_on(self, resume: EarlierSearch) -> LearnOutcome | None:
        """Learn what an earlier run has not learned."""
        earlier = Earlier.read(resume, self.setting)
        earlier.check(self.prepared)
        given = self.experiment.split.given is not None
        work = replace(self, prepared=earlier.with_parts(self.prepared, given))
        rows, course = earlier.to_learn(rows_to_learn(work.prepared), self.course)
        begun = course.epoch > 1 or course.learned > 0
        for note in earlier.notes(work.prepared, rows.iloc[:0] if begun else rows):
            self.console.print(note, markup=False, soft_wrap=True)
        if begun:
            self.console.print(
                f"going on in epoch {course.epoch} of {course.epochs}, at image {course.learned}"
            )
        elif rows.empty:
            known = f"all {len(earlier.learned())} images were learned before"
            if resume.status == "FINISHED":
                self.console.print(f"nothing is new: {known}")
                return None
            self.console.print(f"{known} by a run that did not end: that is tested and registered")
            course = replace(course, epoch=course.epochs)
        return work._learn(earlier.learner, rows, course, earlier)

    def _learn(
        self, learner: Learner, rows: pd.DataFrame, course: Course, earlier: Earlier | None
    ) -> LearnOutcome:
        log_learning_data(self.run, self.experiment, self.prepared)
        state = self._state(rows, course, earlier)
        with feature_rows(self.cache, self.prepared, self._network, rows, self.run.run_id) as features:
            self._check(features.file.lowest)
            passed, validation = self._stream(learner, state, features, knows=earlier is not None)
            head = learner.head()
            scored = features.tested(head)
            compared = None if earlier is None else self._compare(features.tested(earlier.before), scored)
        test = evaluate(scored.label_index, scored.scores, self.prepared.labels, scored.gives)
        version = self._register(head, validation, test, scored, compared)
        return LearnOutcome(
            experiment=self.experiment,
            store=self.store,
            run_id=self.run.run_id,
            params=self.params,
            new=len(rows),
            learned=len(state.images),
            progressive=passed.accuracy,
            validation=validation.metrics,
            test=test,
            comparison=compared,
            version=version,
            extracted=self.prepared.extracted,
        )

    def _state(self, rows: pd.DataFrame, course: Course, earlier: Earlier | None) -> LearnedState:
        images = rows[["digest", "label"]].assign(run=True)
        if earlier is not None:
            before = earlier.learned().assign(run=False)
            images = pd.concat([before[~before["digest"].isin(set(images["digest"]))], images])
        return LearnedState(
            classifier=self.params.row.name,
            values=self.params.values,
            step=self.experiment.learn.step,
            network=self._network.key,
            labels=self.prepared.labels,
            images=images.reset_index(drop=True),
            course=course,
        )

    def _check(self, lowest: float) -> None:
        if self.params.row.of_counts and lowest < 0:
            raise ExperimentError(
                f"{self.params.row.name} takes no negative features, and those of {self._network.name} go "
                f"down to {lowest:.3g}: learn another classifier, or on another network."
            )

    def _stream(
        self, learner: Learner, state: LearnedState, features: FeatureRows, *, knows: bool
    ) -> tuple[Passed, Evaluation]:
        """Learn and keep it; meanwhile log how well images are predicted before they are learned."""
        rows, course = features.learned, state.course
        keep = Keeper(self.run, learner, state, len(state.images) - len(rows))
        labels = rows[LABEL_INDEX].to_numpy(np.int64)
        stream = learn_stream(
            learner, features.file, np.arange(len(rows)), labels, course=course, knows=knows
        )
        every = course.batch * max(1, len(rows) // (course.batch * _POINTS))
        started = time.monotonic()
        points: list[tuple[int, int, int]] = []
        accuracies: dict[int, float] = {}
        passed = Passed(course.epoch, course.learned, 0, 0, ends_epoch=True)  # where nothing is left
        with self._bar(len(rows) * course.epochs) as advance:
            for passed in stream:
                learned = (passed.epoch - 1) * len(rows) + passed.learned
                advance(learned)
                shown = passed.ends_epoch or passed.learned % every == 0
                if passed.epoch == 1 and shown and passed.accuracy is not None:
                    self.run.batch(metrics={names.PROGRESSIVE: passed.accuracy}, step=learned)
                    points.append((learned, passed.predicted, passed.right))
                if passed.ends_epoch:
                    validation = self._validate(features.validated(learner.head()), passed.epoch)
                    accuracies[learned] = validation.metrics["accuracy"]
                keep.after(passed)
        if rows.empty:
            validation = self._validate(features.validated(learner.head()), course.epoch)
            keep.after(passed)
        self.run.batch(metrics={"learn_seconds": time.monotonic() - started})
        log_progress(self.run, points, accuracies)
        return passed, validation

    @contextmanager
    def _bar(self, total: int) -> Iterator[Callable[[int], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, console=self.console, disable=not self.console.is_terminal, transient=True
        ) as bar:
            task = bar.add_task("learning", total=total)
            yield lambda done: bar.update(task, completed=done)

    def _validate(self, scored: Scored, epoch: int) -> Evaluation:
        found = evaluate(scored.label_index, scored.scores, self.prepared.labels, scored.gives)
        self.run.batch(metrics=found.metrics, step=epoch)
        return found

    def _compare(self, before: Scored, after: Scored) -> Comparison:
        """What was learned before, and what is now, on the same test images."""
        return compare(
            after.path,
            after.label_index,
            before.scores,
            after.scores,
            self.prepared.labels,
            metric=self.experiment.search.metric,
            gives=(before.gives, after.gives),
        )

    def _register(
        self,
        head: Head,
        validation: Evaluation,
        test: Evaluation,
        scored: Scored,
        compared: Comparison | None,
    ) -> RegisteredVersion:
        metric = self.experiment.search.metric
        with tempfile.TemporaryDirectory() as folder:
            files = Path(folder) / "model"
            write_model_files(files, first_image(self.prepared), sklearn=True)
            console, run = self.console, self.run
            features = partial(self.cache.load, self._network)
            with winners_onnx(
                self.cache.networks,
                self.prepared,
                self._network,
                features,
                files=files,
                run=run,
                console=console,
            ) as as_onnx:
                onnx = as_onnx(head)
            model = FittedModel(self._network, head, {}, self.prepared.labels, onnx=onnx)
            logged = log_model(self.run, model, name=names.MODEL, files=files)
        before = {}
        if compared is not None:
            before = {f"before_test_{name}": value for name, value in compared.champion.metrics.items()}
        log_test(self.run, test, scored, logged.model_id, metrics=before)
        result = TrialResult(1, self.params, "", self.run.run_id, validation.metrics)
        facts = facts_of(self.experiment, self.prepared, result, test)
        tags = {
            "backbone": self.params.backbone,
            "classifier": self.params.row.name,
            f"validation_{metric}": f"{validation.metrics[metric]:.4f}",
        }
        return register_winner(
            self.session, self.store, self.run, self.experiment, self.prepared, logged, facts, tags
        )
