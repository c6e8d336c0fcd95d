from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from tuner.registry.history import LoggedMove, Move, MoveLog
from tuner.tracking.names import PROMOTION, ROLLBACK

TEXT = st.text(max_size=40)
NUMBERS = st.integers(1, 99).map(str)


@given(
    st.sampled_from([PROMOTION, ROLLBACK]),
    st.tuples(TEXT, st.none() | NUMBERS, NUMBERS),
    st.builds(Move, why=TEXT, by=st.none() | TEXT, run_id=st.none() | TEXT),
    st.none() | TEXT,
)
def test_an_entry_comes_back_equal(kind, way, move, stage):
    made = LoggedMove.now(kind, *way, move).with_stage(stage)
    assert LoggedMove.of_entry(made.entry()) == made
    assert "\n" not in made.entry()


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["champion", "canary"]), st.integers(0, 4)), max_size=25))
def test_rollbacks_undo_promotions_one_after_the_other(steps: list[tuple[str, int]]):
    """Version 0 stands for a rollback; a stack for each alias says what each of them must come to."""
    stacks: dict[str, list[str]] = {"champion": [], "canary": []}
    tags: dict[str, str] = {}
    for alias, number in steps:
        stack = stacks[alias]
        log = MoveLog.read(tags, [], stacks)
        if number and stack[-1:] != [str(number)]:
            source = stack[-1] if stack else None
            move = LoggedMove.now(PROMOTION, alias, source, str(number), Move(""))
            stack.append(str(number))
        elif not number and len(stack) > 1:
            held = log.holders(alias, stack[-1])
            assert held == stack
            move = LoggedMove.now(ROLLBACK, alias, held[-1], held[-2], Move(""))
            stack.pop()
        else:
            continue
        tags[log.next_key] = move.entry()
    for alias, stack in stacks.items():
        if stack:
            assert MoveLog.read(tags, [], stacks).holders(alias, stack[-1]) == stack


def test_entries_are_in_the_order_of_their_numbers():
    tags = {
        f"tuner.move.{n}": LoggedMove.now(PROMOTION, "a", None, n, Move("")).entry()
        for n in ("10000", "0009")
    }
    log = MoveLog.read(tags, [], ["a"])
    assert [move.target for move in log.moves] == ["0009", "10000"]
    assert log.next_key == "tuner.move.10001"
    assert MoveLog.read({}, [], ["a"]).next_key == "tuner.move.0001"


def test_old_tags_of_versions_are_moves_too():
    moved = {"from": "1", "to": "2", "at": "2025-01-02T00:00:00+00:00", "why": "better"}
    tags = [ModelVersionTag(f"tuner.promotion.{key}", value) for key, value in moved.items()]
    version = ModelVersion("letters", "2", 0, tags=tags)
    (known,) = MoveLog.read({}, [version], ["champion", "challenger"]).moves
    assert (known.alias, known.source, known.target, known.why) == ("champion", "1", "2", "better")
    (unknown,) = MoveLog.read({}, [version], ["champion", "canary"]).moves
    assert unknown.alias is None
