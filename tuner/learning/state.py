"""A learner made, and what is kept of it, without pickle: its numbers, its images, how far it came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from tuner.base.errors import ModelError
from tuner.base.wording import first_line
from tuner.classifiers.space import Value
from tuner.learning.learner import Learner, LearnerSetting

FORMAT = 1
_STATE, _IMAGES = "state.json", "images.parquet"


def make_learner(setting: LearnerSetting) -> Learner:
    """Make a learner that has learned nothing yet."""
    if setting.row.library == "river":
        from tuner.learning.river_learner import RiverLearner

        return RiverLearner(setting)
    from tuner.learning.sklearn_learner import SklearnLearner

    return SklearnLearner(setting)


@dataclass(frozen=True)
class Course:
    """How far a run came in learning its images.

    Attributes
    ----------
    seed, batch, epochs
        How it goes through them: the order of a pass is known by these.
    epoch, learned
        The pass that it was in, from 1, and how many images of it were learned.
    """

    seed: int
    batch: int
    epochs: int
    epoch: int = 1
    learned: int = 0

    def is_over(self, images: int) -> bool:
        """Whether nothing of so many images is left."""
        return self.epoch == self.epochs and self.learned == images


@dataclass(frozen=True, eq=False)
class LearnedState:
    """What is known of a learner beside its numbers.

    Attributes
    ----------
    classifier, values, step
        What learns, as of `tuner.learning.learner.LearnerSetting`.
    network, labels
        The key of the network whose features were learned (`Network.key`), and the class names.
    images
        One row an image that was learned or was to be: `digest`, `label`, and `run`, whether it is of the
        last run; those in the order from which each pass draws its own.
    course
        How far the last run came.
    """

    classifier: str
    values: Mapping[str, Value]
    step: str
    network: str
    labels: tuple[str, ...]
    images: pd.DataFrame
    course: Course

    def write_images(self, folder: Path) -> None:
        """Write which images there are, which a run does not change."""
        self.images.to_parquet(folder / _IMAGES, index=False)

    def write(self, folder: Path, learner: Learner) -> None:
        """Write the rest: how far the run came, and the learner's numbers."""
        data = {name: value for name, value in vars(self).items() if name != "images"}
        data |= {"format": FORMAT, "labels": list(self.labels), "course": asdict(self.course)}
        (folder / _STATE).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        learner.write(folder)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` and `write_images` wrote, but for the learner's numbers.

        Raises
        ------
        ModelError
            It cannot be read, or is of another format.
        """
        try:
            data: dict[str, Any] = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            found = data.pop("format")
            if found != FORMAT:
                raise ModelError(
                    f"What was learned is kept in format {found}, and this version of tuner reads format "
                    f"{FORMAT}: use the version that made it, or learn anew."
                )
            data |= {"labels": tuple(data["labels"]), "course": Course(**data["course"])}
            return cls(images=pd.read_parquet(folder / _IMAGES), **data)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"What was learned cannot be read: {first_line(error)}.") from error


def read_learner(folder: Path, setting: LearnerSetting) -> Learner:
    """Take up a learner whose numbers are in a folder.

    Raises
    ------
    ModelError
        They cannot be read.
    """
    learner = make_learner(setting)
    try:
        learner.read(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"What was learned cannot be read: {first_line(error)}.") from error
    return learner
