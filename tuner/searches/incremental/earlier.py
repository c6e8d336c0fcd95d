"""An earlier run of `tuner learn`, gone on with: what it kept, and what is new of its images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from tuner.base.errors import ExperimentError
from tuner.classifiers.heads.files import Head
from tuner.experiment.schema import Experiment
from tuner.images.splits import TEST, TRAIN
from tuner.learning.learner import Learner, LearnerSetting
from tuner.learning.state import Course, LearnedState, read_learner
from tuner.learning.stream import drawn_order
from tuner.preparation.images import PreparedImages
from tuner.searches.incremental.feature_rows import HELD_BACK
from tuner.searches.resume import EarlierSearch, flat
from tuner.tracking import names
from tuner.tracking.heartbeat import Heartbeat, check_free
from tuner.tracking.run_log import read_artifact
from tuner.tracking.runs import found_runs

# What was learned is of these.
_FIXED = (
    "learn.backbone.",
    "learn.classifier.",
    "learn.step.",
    "learn.seed.",
    "precision.",
    "transparent.",
    "max_value.",
    "split.",
)


@dataclass(frozen=True, eq=False)
class Earlier:
    """What an earlier run kept.

    Attributes
    ----------
    run_id
        The run.
    state
        What it learned.
    learner, before
        To go on with, and what it computes as it is.
    split
        One row an image that it used: `digest`, `label`, `part`.
    """

    run_id: str
    state: LearnedState
    learner: Learner
    before: Head
    split: pd.DataFrame

    @classmethod
    def read(cls, found: EarlierSearch, setting: LearnerSetting) -> Earlier:
        """Fetch it from MLflow; `setting` is of the run that goes on.

        Raises
        ------
        TrackingError, ModelError
            It kept nothing, or what it kept cannot be read.
        """
        with tempfile.TemporaryDirectory() as place:
            folder = read_artifact(found.store, found.run_id, names.LEARNER_FOLDER, Path(place))
            split = read_artifact(found.store, found.run_id, names.SPLIT_FILE, Path(place))
            return cls(
                found.run_id,
                LearnedState.read(folder),
                read_learner(folder, setting),
                read_learner(folder, setting).head(),
                pd.read_parquet(split),
            )

    def check(self, prepared: PreparedImages) -> None:
        """Refuse other classes than what was learned knows, and another network.

        Raises
        ------
        ExperimentError
            What differs.
        """
        (network,) = prepared.networks.values()
        if self.state.network != network.key:
            raise ExperimentError(
                f"The network {network.name} is not the one whose features the run {self.run_id} learned: "
                "its file or its preprocessing changed. Learn anew, without --resume."
            )
        old, new = set(self.state.labels), set(prepared.labels)
        if old != new:
            changes = [
                f"{what} {', '.join(sorted(classes))}"
                for what, classes in (("there is no", old - new), ("there is now", new - old))
                if classes
            ]
            raise ExperimentError(
                f"The classes are not those that the run {self.run_id} learned: {' and '.join(changes)}. "
                "Learn anew, without --resume; features are not extracted again."
            )

    def with_parts(self, prepared: PreparedImages, given: bool) -> PreparedImages:
        """Let each image that was used keep its part; new ones are learned, but as a given split has it."""
        index = prepared.index
        before = index["digest"].map(dict(zip(self.split["digest"], self.split["part"], strict=True)))
        parts = index["part"]
        if not given:
            learned = "fold-1" if parts.str.startswith("fold-").any() else TRAIN
            parts = parts.where(~parts.isin([TEST, *HELD_BACK]), learned)
        return replace(prepared, index=index.assign(part=before.where(before.notna(), parts)))

    def to_learn(self, rows: pd.DataFrame, course: Course) -> tuple[pd.DataFrame, Course]:
        """Of the rows of the parts that are learned those that were not, and where to begin with them.

        Where the run was stopped and the images are the same, that is in the midst of its course.
        """
        images, was = self.state.images, self.state.course
        last = images["digest"][images["run"]]
        known = set(images["digest"][~images["run"]])
        rest = rows[~rows["digest"].isin(known)]
        over = was.is_over(len(last))
        same = replace(was, epoch=1, learned=0) == course
        if not over and same and list(rest["digest"]) == list(last):
            return rest, was
        return rest[~rest["digest"].isin(self._covered())], course

    def _covered(self) -> set[str]:
        """The images of its own that the run has learned, once at least."""
        images, was = self.state.images, self.state.course
        last = images["digest"][images["run"]].to_numpy()
        if was.epoch > 1:
            return set(last)
        return set(last[drawn_order(len(last), was.seed, 1)[: was.learned]])

    def learned(self) -> pd.DataFrame:
        """The images that it has learned, by itself or by those before it: `digest`, `label`."""
        images = self.state.images
        counts = ~images["run"] | images["digest"].isin(self._covered())
        return images.loc[counts, ["digest", "label"]]

    def notes(self, prepared: PreparedImages, new: pd.DataFrame) -> Iterator[str]:
        """Say what is new, what is gone and what stands in another class now."""
        index, learned = prepared.index, self.learned()
        if len(new):
            found = new["label"].value_counts()
            counts = ", ".join(f"{label} {found[label]}" for label in prepared.labels if label in found)
            yield f"{len(new)} of {len(index)} images were not learned yet: {counts}"
        gone = int((~learned["digest"].isin(set(index["digest"]))).sum())
        if gone:
            yield f"{gone} images that were learned are not there any more: what was learned of them stays"
        now = index.drop_duplicates("digest").set_index("digest")["label"]
        other = int((learned["digest"].map(now).fillna(learned["label"]) != learned["label"]).sum())
        if other:
            yield f"{other} images have another class now than when they were learned, which stays learned"
        tested = self.split["digest"][self.split["part"] == TEST]
        lost = int((~tested.isin(set(index["digest"]))).sum())
        if lost:
            yield f"{lost} of {len(tested)} test images are not there any more"


def check_same_learning(earlier: Experiment, experiment: Experiment, run_id: str) -> None:
    """Refuse an experiment that learns something else than the run that it goes on with.

    Raises
    ------
    ExperimentError
        What differs, with both values.
    """
    before, now = (dict(flat(each.to_yaml_dict())) for each in (earlier.for_learning(), experiment))
    for key in sorted(before.keys() | now.keys()):
        was, is_now = before.get(key, "not set"), now.get(key, "not set")
        if f"{key}.".startswith(_FIXED) and was != is_now:
            raise ExperimentError(
                f"The run {run_id} cannot be gone on with: {key} was {was} and is {is_now}. Resume it "
                "without this, or learn anew without --resume."
            )


def claim(found: EarlierSearch, heartbeat: Heartbeat, *, force: bool = False) -> None:
    """Take a run for the one that is to go on with it; if it was killed, MLflow is told that it ended.

    With `force` it is taken from another process that goes on with it, which ends as soon as it sees that.

    Raises
    ------
    TrackingError
        Another process goes on with it.
    """
    heartbeat.claim(found.run_id)
    store = found.store
    after = f"tags.`{names.LEARNED_BEFORE}` = '{found.run_id}' and attributes.status = 'RUNNING'"
    for run in found_runs(store, [store.experiment_id], after, "start_time DESC"):
        if force:
            heartbeat.claim(run.info.run_id)
        else:
            check_free(run, f"run {run.info.run_id}, which goes on with {found.run_id},")
    if found.status == "RUNNING":
        store.client().set_terminated(found.run_id, "KILLED")
