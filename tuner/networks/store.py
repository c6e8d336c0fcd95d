"""The store of networks: their files, named by their digests, and what each was made of."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tuner.base.errors import CacheError, NetworkError
from tuner.base.files import DEFAULT_CACHE, file_digest, write_aside
from tuner.base.wording import first_line


@dataclass(frozen=True)
class StoredNetwork:
    """What the store remembers of a network: its digest, its file's name there, its width."""

    digest: str
    file: str
    width: int


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
