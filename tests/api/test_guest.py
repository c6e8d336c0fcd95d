"""A guest in somebody else's program: what is set in the process is the same before and after."""

import ast
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

import tuner
from tuner.api.guest import LOGGERS, as_it_was
from tuner.base.interrupts import Interrupted, stop_requests
from tuner.tracking.store import open_registry

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def state() -> dict[str, object]:
    """What a program may have set in its process."""
    loggers = [
        name for name, made in logging.root.manager.loggerDict.items() if isinstance(made, logging.Logger)
    ]
    return {
        "environment": dict(os.environ),
        "tracking": (mlflow.is_tracking_uri_set(), mlflow.get_tracking_uri()),
        "levels": {name: logging.getLogger(name).level for name in [*loggers, *LOGGERS]},
        "root": logging.root.level,
        "signals": [signal.getsignal(signum) for signum in _SIGNALS],
    }


@contextmanager
def unchanged() -> Iterator[None]:
    for name in LOGGERS:
        logging.getLogger(name)
    before = state()
    yield
    after = state()
    assert {key: value for key, value in after.items() if key != "levels"} == {
        key: value for key, value in before.items() if key != "levels"
    }
    levels = after["levels"]
    assert isinstance(levels, dict)
    assert {name: levels[name] for name in before["levels"]} == before["levels"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("is_set", ["", "call", "variable"])
def test_what_is_changed_is_changed_back(
    is_set: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("REMOVED", "1")
    if is_set == "call":
        mlflow.set_tracking_uri("sqlite:///own.db")
    elif is_set == "variable":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///own.db")
    with unchanged(), as_it_was():
        open_registry()
        os.environ.update(KEPT="2", ADDED="1")
        del os.environ["REMOVED"]
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        logging.root.setLevel(logging.DEBUG)
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'other.db'}")
    if is_set == "variable":  # a later change of it counts, as before
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///another.db")
        assert mlflow.get_tracking_uri() == "sqlite:///another.db"


@as_it_was()
def failing() -> None:
    os.environ["ADDED"] = "1"
    raise ValueError("x")


def test_it_is_changed_back_after_an_error() -> None:
    with unchanged(), pytest.raises(ValueError, match="x"):
        failing()


def test_the_run_of_mlflow_run_is_gone_on_with_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "a")
    with as_it_was():
        del os.environ["MLFLOW_RUN_ID"]  # as `mlflow.start_run` does
    assert "MLFLOW_RUN_ID" not in os.environ


@as_it_was()
def stopped_by(signum: int) -> None:
    with stop_requests():
        signal.raise_signal(signum)
        threading.Event().wait(5)


def test_ctrl_c_is_what_the_program_is_used_to() -> None:
    with unchanged(), pytest.raises(KeyboardInterrupt):
        stopped_by(signal.SIGINT)


def test_a_signal_reaches_the_program_s_own_handler() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda signum, _: heard.append(signum))
    try:
        with unchanged(), pytest.raises(Interrupted):
            stopped_by(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_the_levels_that_tuner_sets_are_known() -> None:
    """Of loggers by their names; `for name in (…)` is one of tracking.store."""
    found = set()
    for file in Path(tuner.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if "setLevel" not in text or file.name == "guest.py":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger"):
                found |= {ast.literal_eval(arg) for arg in node.args if isinstance(arg, ast.Constant)}
            if isinstance(node, ast.For) and "setLevel" in ast.unparse(node):
                found |= set(ast.literal_eval(node.iter))
    assert {"py4j", "alembic"} <= found <= set(LOGGERS)


@pytest.mark.parametrize(
    ("call", "given"),
    [
        *((name, "nothing.yaml") for name in ("search", "spot_check", "features")),
        *((name, "models:/none/1") for name in ("compare", "promote", "load")),
    ],
)
def test_a_call_that_is_refused_leaves_the_process_as_it_was(
    call: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with unchanged(), pytest.raises(tuner.InvalidInput):
        getattr(tuner, call)(given)
