import threading
import time

import pytest

from tests.helpers.registries import versions
from tuner.base.errors import TrackingError
from tuner.registry import turns
from tuner.registry.turns import turn
from tuner.tracking.store import Tracking


def turn_tags(tracking: Tracking) -> dict[str, str]:
    return tracking.client().get_registered_model("letters").tags


@pytest.mark.long
@pytest.mark.timeout(600)
def test_only_one_at_a_time(tracking: Tracking):
    """Each reads a number, waits, and writes it back raised by one: two at once would lose one."""
    versions(tracking, 0)
    written = [0]
    start = threading.Barrier(5)

    def count() -> None:
        client = tracking.client()
        start.wait()
        for _ in range(2):
            with turn(client, "letters") as check:
                found = written[0]
                time.sleep(0.02)
                check()
                written[0] = found + 1

    threads = [threading.Thread(target=count) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [10]
    assert turn_tags(tracking) == {}


def test_who_still_draws_a_number_is_waited_for(tracking: Tracking, monkeypatch: pytest.MonkeyPatch):
    """It may draw the smaller one; and one that ended while drawing is passed over, and said."""
    monkeypatch.setattr(turns, "_ENDED_SECONDS", 0.5)
    versions(tracking, 0)
    client = tracking.client()
    client.set_registered_model_tag("letters", "tuner.turn.other", "choosing")
    ended: list[str] = []
    started = time.monotonic()
    with turn(client, "letters", lambda: ended.append("one")):
        assert time.monotonic() - started > 0.5
    assert (ended, turn_tags(tracking)) == (["one"], {})


def test_who_came_first_is_waited_for_and_who_comes_later_waits(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(turns, "_ENDED_SECONDS", 0.5)
    versions(tracking, 0)
    client = tracking.client()
    client.set_registered_model_tag("letters", "tuner.turn.first", "7")
    ended: list[str] = []
    with turn(client, "letters", lambda: ended.append("first")):
        (own,) = turn_tags(tracking).values()
        assert (ended, own) == (["first"], "8")
        client.set_registered_model_tag("letters", "tuner.turn.later", "9")
    assert (ended, turn_tags(tracking)) == (["first"], {"tuner.turn.later": "9"})


def test_who_was_taken_for_ended_is_told_so(tracking: Tracking):
    versions(tracking, 0)
    client = tracking.client()
    with turn(client, "letters") as check:
        for key in turn_tags(tracking):
            client.delete_registered_model_tag("letters", key)
        with pytest.raises(
            TrackingError, match="so long that others went on without it: nothing has moved"
        ):
            check()
    assert turn_tags(tracking) == {}


def test_a_failure_within_a_turn_ends_it(tracking: Tracking):
    versions(tracking, 0)
    with pytest.raises(ZeroDivisionError), turn(tracking.client(), "letters"):
        raise ZeroDivisionError
    assert turn_tags(tracking) == {}
