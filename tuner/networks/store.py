"""The store of networks: their files, named by their digests, what each was made of, and tuned ones."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from tuner.base.choices import Preprocessing
from tuner.base.errors import CacheError, NetworkError
from tuner.base.files import DEFAULT_CACHE, file_digest, write_aside
from tuner.base.wording import first_line
from tuner.images.splits import TEST, TRAIN, VALIDATION


@dataclass(frozen=True)
class StoredNetwork:
    """What the store remembers of a network: its digest, its file's name there, its width."""

    digest: str
    file: str
    width: int


TUNED_FOLDER = "network"
"""The artifact of a run that fine-tuned a network: `runs:/<id>/network`."""

_TUNED_FILE, _TUNED_MODEL, _TUNED_GRAPH = "network.json", "network.keras", "saved_model"
_SPLIT_FILE = "split.parquet"


def is_tuned(file: Path | None) -> bool:
    """Whether an experiment's file of a network is an artifact of a run, not one of a disk."""
    return file is not None and file.parts[:1] == ("runs:",)


@dataclass(frozen=True, eq=False)
class Tuned:
    """A network that was tuned, with what it was tuned on.

    Attributes
    ----------
    input_size, preprocessing
        What it takes: height and width in pixels, and what is done to them.
    run_id
        The run that tuned it.
    data_digest
        Of the images, their labels and their split.
    split
        One row an image: `digest`, `part`, of which it learned from `train` and was chosen by `validation`.
    """

    input_size: tuple[int, int]
    preprocessing: Preprocessing
    run_id: str
    data_digest: str
    split: pd.DataFrame

    def write(self, folder: Path, save: Callable[[Path], object], *, graph: bool) -> Path:
        """Write what `TUNED_FOLDER` holds; `save` writes the network, as a SavedModel with `graph`."""
        described = {
            "input_size": self.input_size,
            "preprocessing": self.preprocessing,
            "run_id": self.run_id,
            "data_digest": self.data_digest,
        }
        (folder / _TUNED_FILE).write_text(json.dumps(described, indent=1), encoding="utf-8")
        self.split[["digest", "part"]].to_parquet(folder / _SPLIT_FILE, index=False)
        file = folder / (_TUNED_GRAPH if graph else _TUNED_MODEL)
        save(file)
        return file

    @classmethod
    def read(cls, folder: Path) -> tuple[Tuned, Path]:
        """Read what `write` wrote, and where the network's file is; raises OSError or ValueError."""
        data = json.loads((folder / _TUNED_FILE).read_text(encoding="utf-8"))
        data["input_size"] = tuple(data["input_size"])
        graph = folder / _TUNED_GRAPH
        return cls(**data, split=pd.read_parquet(folder / _SPLIT_FILE)), (
            graph if graph.is_dir() else folder / _TUNED_MODEL
        )

    def check_split(self, name: str, index: pd.DataFrame, parts: pd.Series) -> None:
        """Refuse images of which some that it learned from, or was chosen by, would judge what it can.

        Parameters
        ----------
        name
            Its name in the experiment.
        index, parts
            The images that can be used, with their `digest`, and the part of each.

        Raises
        ------
        NetworkError
            How many images it is, and whose split to take.
        """
        before = dict(zip(self.split["digest"], self.split["part"], strict=True))
        known = index["digest"].map(before)
        learned, chosen = known == TRAIN, known == VALIDATION
        in_test, ranks = parts == TEST, ~parts.isin([TEST, TRAIN])  # folds rank, too
        counts = {
            TEST: int((in_test & (learned | chosen)).sum()),
            VALIDATION: int((ranks & learned).sum()),
        }
        if any(counts.values()):
            told = " and ".join(f"{count} for {part}" for part, count in counts.items() if count)
            raise NetworkError(
                f"The network {name} was tuned on images that this split holds back ({told}), so it would "
                f"be judged by what it has learned: take the split and the seed of the run {self.run_id} "
                f"(experiment.yaml there; data digest {self.data_digest}), or another backbone."
            )


class NetworkStore:
    """The networks under one feature cache.

    Safe for several processes: files are written aside and renamed, and a network is made once.

    Parameters
    ----------
    cache
        The feature cache's folder; the store is its folder `networks`, made when it is written to.
    """

    def __init__(self, cache: Path = DEFAULT_CACHE) -> None:
        self.folder = cache / "networks"

    def path(self, stored: StoredNetwork) -> Path:
        """Where a network's file lies."""
        return (self.folder / stored.file).absolute()

    def recall(self, wanted: Mapping[str, Any]) -> StoredNetwork | None:
        """Find what was made of this before, unless its file is gone.

        Raises
        ------
        CacheError
            The store cannot be read.
        """
        try:
            stored = StoredNetwork(**json.loads(self._record(wanted).read_text(encoding="utf-8"))["stored"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        return stored if self.path(stored).is_file() else None

    def make_once(self, wanted: Mapping[str, Any], make: Callable[[], StoredNetwork]) -> StoredNetwork:
        """Make a network and remember it; a second search that wants it waits, and then finds it made.

        Raises
        ------
        CacheError
            The store cannot be written.
        """
        record = self._record(wanted)
        with self._writing():
            record.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "making.lock"):
                stored = self.recall(wanted)
                if stored is None:
                    stored = make()
                    text = json.dumps({"wanted": dict(wanted), "stored": asdict(stored)}, indent=1)
                    write_aside(record, lambda aside: aside.write_text(text, encoding="utf-8"))
                return stored

    def keep(self, digest: str, suffix: str, width: int, write: Callable[[Path], object]) -> StoredNetwork:
        """Store a network's file, which `write` writes to the path that it is given.

        One that is there stays: models name its bytes, which hold the date, too.
        """
        stored = StoredNetwork(digest, f"{digest}{suffix}", width)
        if not self.path(stored).is_file():
            write_aside(self.folder / stored.file, write)
        return stored

    def locate(
        self, name: str, digest: str, carried: Path | None, uri: str | None, sha256: str | None
    ) -> Path:
        """Find the network of a saved model by its digest.

        Parameters
        ----------
        name, digest
            Of the network; the file is called after the digest.
        carried
            The file beside the saved model, if it has one.
        uri
            Where MLflow has the file, if it does; what is fetched from there is stored.
        sha256
            Of the bytes of the file that MLflow has; None: unknown, and nothing is fetched.

        Raises
        ------
        NetworkError
            It is in none of these places, cannot be fetched, or what was fetched is another file.
        CacheError
            The store cannot be written.
        """
        if carried is not None and carried.exists():
            return carried
        stored = next(self.folder.glob(f"{digest}.*"), None)
        if stored is not None:
            return stored
        if uri is None:
            raise NetworkError(
                f"The network {name} (digest {digest[:12]}) is neither in the saved model nor in "
                f"{self.folder}: save the model with embedWeights=True."
            )
        return self._fetch(name, digest, uri, sha256)

    def _fetch(self, name: str, digest: str, uri: str, sha256: str | None) -> Path:
        """Fetch a network's file from MLflow; written aside, and looked at before anybody can find it."""
        import mlflow

        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            try:
                file = Path(mlflow.artifacts.download_artifacts(uri, dst_path=aside))
            except Exception as error:  # each kind of store has its own
                raise NetworkError(
                    f"The network {name} cannot be fetched from {uri}: {first_line(error)} (check "
                    "MLFLOW_TRACKING_URI)."
                ) from error
            if sha256 is None or not file.is_file() or file_digest(file) != sha256:
                raise NetworkError(
                    f"What was fetched from {uri} is not the network {name} that the model was made with "
                    f"(its sha256 should be {sha256}): it is not used. Put the right file back there, or "
                    "search again."
                )
            place = self.folder / f"{digest}{file.suffix}"
            return place if place.exists() else file.replace(place)

    def tuned(self, name: str, uri: str) -> tuple[Tuned, Path]:
        """Fetch a tuned network from its run, once; gives it, and where its file is here.

        Raises
        ------
        NetworkError
            There is no such run or artifact, it is no tuned network, or it cannot be fetched.
        CacheError
            The store cannot be written.
        """
        import mlflow

        place = self.folder / "tuned" / hashlib.sha256(uri.encode()).hexdigest()[:16]
        try:
            if not place.is_dir():
                with self._writing():
                    place.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=place.parent) as aside:
                    fetched = Path(mlflow.artifacts.download_artifacts(uri, dst_path=aside))
                    Tuned.read(fetched)
                    fetched.rename(place)
            return Tuned.read(place)
        except CacheError:
            raise
        except Exception as error:  # each kind of store has its own
            raise NetworkError(
                f"The network {name} cannot be had from {uri}: {first_line(error)} (give runs:/ID/"
                f"{TUNED_FOLDER} of a run of tuner fine-tune, and check MLFLOW_TRACKING_URI)."
            ) from error

    def _record(self, wanted: Mapping[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
        return self.folder / "resolved" / f"{digest}.json"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> CacheError:
        return CacheError(
            f"The folder of networks {self.folder} cannot be used: {error.strerror or error}; free it, or "
            "set another with cache."
        )
