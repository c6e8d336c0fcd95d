"""The part of an experiment that names a network."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from tuner.base.choices import Pooling, Preprocessing
from tuner.classifiers.space import Frozen
from tuner.experiment.fields import NAME_LENGTH, MaybePath, PathOf


class NetworkSpec(Frozen):
    """A network as an experiment names it, before its weights are found.

    `weights` is `imagenet`, `random` (with `seed`) or a path to a `.h5` or `.keras` file, for a network
    of the table; `file` is a network of one's own (`.keras` or a SavedModel folder), which needs
    `input_size` (height, width in pixels) and `preprocessing`, or a tuned one, `runs:/<id>/network`, which
    has them. `pooling` is what becomes of its last map.
    """

    name: str = Field(min_length=1, max_length=NAME_LENGTH, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    weights: MaybePath | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    file: PathOf | None = None
    input_size: tuple[int, int] | None = None
    preprocessing: Preprocessing | None = None
    pooling: Pooling = "avg"

    @field_validator("input_size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _own_network_is_described(self) -> NetworkSpec:
        if self.file is not None:
            tuned = self.file.parts[:1] == ("runs:",)  # it says itself what it takes
            missing = (
                [] if tuned else [k for k in ("input_size", "preprocessing") if getattr(self, k) is None]
            )
            if missing:
                raise ValueError(
                    f"the network {self.name} comes from a file, so {' and '.join(missing)} must be "
                    "stated (input_size: [224, 224], preprocessing: tf, caffe, torch, unit or none)"
                )
            if self.weights is not None:
                raise ValueError(f"the network {self.name} comes from a file: leave out weights")
        if self.input_size is not None and min(self.input_size) < 1:
            raise ValueError(f"the input_size of {self.name} must be at least 1 pixel a side")
        return self


def parse_backbones(value: object) -> object:
    """Read names separated by commas, or descriptions; raises nothing, for pydantic says what is wrong."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        items = [items]
    return tuple({"name": item.strip()} if isinstance(item, str) else item for item in items)
