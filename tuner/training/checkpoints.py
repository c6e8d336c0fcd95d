"""What is kept of a training after each epoch, so that it can go on: arrays and plain data in one file."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tuner.base.choices import loss_of
from tuner.base.errors import CacheError
from tuner.base.files import write_aside

_LAST, _BEST = "last.npz", "best.npz"
_STATE = "state"


@dataclass(frozen=True)
class Epoch:
    """What one epoch showed: `metrics` by name, those of the validation part with `validation_` before."""

    number: int
    phase: str
    seconds: float
    metrics: Mapping[str, float]

    @property
    def validation(self) -> dict[str, float]:
        """What the validation part showed, by the names that metrics have in a search's trials."""
        of_validation = "validation_"
        return {
            name.removeprefix(of_validation): value
            for name, value in self.metrics.items()
            if name.startswith(of_validation)
        }

    def rank(self, metric: str) -> tuple[float, float]:
        """The lower, the better: by the metric, then by the loss, for few images have many equals."""
        return loss_of(metric, self.metrics[f"validation_{metric}"]), self.metrics["validation_logLoss"]


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    `begins` is the number of the epoch that comes next: one after the last but where a phase ended early.
    `notes` are sentences on what happened on the way; `plan` stands for what decides it.
    """

    plan: str
    begins: int = 1
    history: Sequence[Epoch] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)

    def best(self, metric: str) -> Epoch:
        """The epoch whose weights are kept: the first of the best ones."""
        return min(self.history, key=lambda epoch: (epoch.rank(metric), epoch.number))

    def to_json(self) -> str:
        """As text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def of_json(cls, text: str) -> Progress:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        return cls(**{**data, "history": tuple(Epoch(**epoch) for epoch in data["history"])})


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a training: its last epoch, whole, and the weights of its best one."""

    folder: Path

    def progress(self, plan: str) -> Progress | None:
        """How far it has come; None where nothing is there.

        Raises
        ------
        CacheError
            What is there is of another training.
        """
        found = self._read(_LAST)
        if found is None:
            return None
        progress = Progress.of_json(str(found[_STATE]))
        if progress.plan != plan:
            raise CacheError(
                f"The checkpoint in {self.folder} is of a training with other settings: start a new one."
            )
        return progress

    def last(self) -> dict[str, np.ndarray]:
        """The arrays of the last epoch, by name."""
        return self._arrays(_LAST)

    def best(self) -> dict[str, np.ndarray]:
        """The arrays of the best epoch, by name."""
        return self._arrays(_BEST)

    def keep(self, progress: Progress, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the last epoch: all of it or, if this process is ended meanwhile, the one before."""
        self._write(_LAST, {**arrays, _STATE: np.array(progress.to_json())})

    def keep_best(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the weights of an epoch that is better than all before."""
        self._write(_BEST, arrays)

    def _write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_aside(self.folder / name, lambda aside: _save(aside, arrays))
        except OSError as error:
            raise CacheError(
                f"The checkpoint in {self.folder} cannot be written: {error.strerror or error}; free it, "
                "or set another folder with cache."
            ) from error

    def _read(self, name: str) -> Any:
        file = self.folder / name
        try:
            return np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) if file.exists() else None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise CacheError(
                f"The checkpoint {file} cannot be read ({error}): remove it, and the training begins anew."
            ) from error

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        found = self._read(name)
        if found is None:
            raise CacheError(f"The checkpoint {self.folder / name} is gone: start a new training.")
        return {key: found[key] for key in found.files if key != _STATE}


def _save(aside: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with aside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
