"""One at a time: who may change a registered model's aliases, by tags alone.

MLflow's registry has no change that depends on what stood there before. What it has are tags, each written
by one process and seen by all, and these are enough to take turns (Lamport, A New Solution of Dijkstra's
Concurrent Programming Problem, Communications of the ACM 17, 1974: the bakery). It matters on no clock and
no process's speed; one that ended within its turn is passed over when its tag has not changed for long. Who
takes no turns, such as a person in MLflow's pages, is not held up.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tuner.base.errors import TrackingError
from tuner.tracking.names import TURN

_CHOOSING = "choosing"
_POLL_SECONDS = 0.2
_ENDED_SECONDS = 120.0  # longer than a turn that has to wait for its server


@contextmanager
def turn(
    client: MlflowClient, name: str, on_ended: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], None]]:
    """Wait for one's turn with a registered model, and hold it.

    Parameters
    ----------
    client, name
        The registry, and the registered model.
    on_ended
        Called when somebody is passed over whose turn did not end.

    Yields
    ------
    A check to call before what must not be done by two: that nobody took this turn for one that ended.

    Raises
    ------
    TrackingError
        By the check, or while waiting: this process was silent for so long that others went on.
    MlflowException
        The registry refuses or does not answer.
    """
    own = f"{TURN}.{uuid.uuid4().hex}"

    def check() -> None:
        if own not in _turns(client, name):
            raise TrackingError(
                f"This change of {name} took so long that others went on without it: nothing has moved, "
                "start again."
            )

    client.set_registered_model_tag(name, own, _CHOOSING)
    try:
        number = 1 + max(map(_number, _turns(client, name).values()))
        client.set_registered_model_tag(name, own, str(number))
        _wait(client, name, (number, own), check, on_ended)
        yield check
    finally:
        with suppress(MlflowException, SQLAlchemyError, OSError):
            client.delete_registered_model_tag(name, own)


def _turns(client: MlflowClient, name: str) -> dict[str, str]:
    tags = client.get_registered_model(name).tags
    return {key: value for key, value in tags.items() if key.startswith(f"{TURN}.")}


def _number(value: str) -> int:
    """The number that was drawn; 0, before all others, while one is being drawn."""
    return int(value) if value.isdecimal() else 0


def _wait(
    client: MlflowClient,
    name: str,
    own: tuple[int, str],
    check: Callable[[], None],
    on_ended: Callable[[], None],
) -> None:
    """Wait until nobody is before this process."""
    seen: dict[str, tuple[str, float]] = {}
    while True:
        turns = _turns(client, name)
        before = {key: value for key, value in turns.items() if (_number(value), key) < own}
        if not before:
            check()
            return
        now = time.monotonic()
        seen = {
            key: seen[key] if seen.get(key, ("", 0.0))[0] == value else (value, now)
            for key, value in before.items()
        }
        for key, (_, since) in seen.items():
            if now - since > _ENDED_SECONDS:
                client.delete_registered_model_tag(name, key)
                on_ended()
        time.sleep(_POLL_SECONDS)
