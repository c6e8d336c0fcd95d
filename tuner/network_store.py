"""Where a saved model finds its network: carried along, stored on this machine, or in MLflow."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tuner.errors import BackboneError

STORE = Path(".tuner") / "backbones"


def locate_network(name: str, digest: str, carried: Path | None, uri: str | None) -> Path:
    """Find a network's file by its digest.

    Parameters
    ----------
    name, digest
        Of the network; the file is called after the digest.
    carried
        The file beside the saved model, if it has one.
    uri
        Where MLflow has the file, if it does; what is fetched from there is stored.

    Raises
    ------
    BackboneError
        It is in none of these places, or cannot be fetched.
    """
    if carried is not None and carried.exists():
        return carried
    stored = next(STORE.glob(f"{digest}.*"), None)
    if stored is not None:
        return stored
    if uri is None:
        raise BackboneError(
            f"The network {name} (digest {digest[:12]}) is neither in the saved model nor in {STORE}: "
            "save the model with embedWeights=True."
        )
    return _fetch(name, uri)


def _fetch(name: str, uri: str) -> Path:
    """Fetch a network's file from MLflow into the store; written aside, for others may look for it."""
    import mlflow

    STORE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STORE) as aside:
        try:
            file = Path(mlflow.artifacts.download_artifacts(uri, dst_path=aside))
        except Exception as error:  # each kind of store has its own
            reason = str(error).strip().partition("\n")[0]
            raise BackboneError(
                f"The network {name} cannot be fetched from {uri}: {reason} (check MLFLOW_TRACKING_URI)."
            ) from error
        return file.replace(STORE / file.name)
