import json
import threading
import warnings
from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion

from tests.helpers.registries import crown, forbid, standing, tags, versions
from tuner.base.errors import ModelError, TrackingError
from tuner.registry.history import Move
from tuner.registry.moves import AliasMovedError, make_challenger, make_champion, roll_back
from tuner.registry.versions import RegisteredVersion, list_moves
from tuner.tracking.store import Tracking


def champion(tracking: Tracking) -> int:
    return int(tracking.client().get_model_version_by_alias("letters", "champion").version)


def back(tracking: Tracking, alias: str = "champion") -> RegisteredVersion:
    return roll_back(tracking, "letters", alias=alias, why="worse")


def model_tags(tracking: Tracking) -> dict[str, str]:
    return tracking.client().get_registered_model("letters").tags


def set_stage(tracking: Tracking, version: ModelVersion, stage: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        tracking.client().transition_model_version_stage("letters", version.version, stage)


def set_alias(tracking: Tracking, alias: str, version: ModelVersion) -> None:
    tracking.client().set_registered_model_alias("letters", alias, version.version)


def test_champion_and_challenger_and_the_tags_of_the_moves(tracking: Tracking):
    first, second = versions(tracking, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        assert crown(tracking, first).uri == "models:/letters@champion"
        challenger = make_challenger(tracking, second, "a note")
        assert (challenger.uri, challenger.stage) == ("models:/letters@challenger", "None")
        assert standing(tracking) == {1: ("Staging", ["champion"]), 2: ("None", ["challenger"])}
        crown(tracking, second, by="someone", run_id="abc")
    assert standing(tracking) == {1: ("Archived", []), 2: ("Staging", ["champion"])}
    written = tags(tracking, 2)
    at = written.pop("tuner.promotion.at")
    assert at.endswith("+00:00")
    assert written == {
        "tuner.promotion.from": "1",
        "tuner.promotion.to": "2",
        "tuner.promotion.why": "better",
        "tuner.promotion.by": "someone",
        "tuner.promotion.run": "abc",
    }
    assert "tuner.promotion.from" not in tags(tracking, 1)


def test_a_second_promotion_forgets_who_forced_the_first(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first, by="someone")
    crown(tracking, second)
    crown(tracking, tracking.client().get_model_version("letters", "1"))
    assert tags(tracking, 1)["tuner.promotion.from"] == "2"
    assert "tuner.promotion.by" not in tags(tracking, 1)


@pytest.mark.parametrize(("stage", "left"), [("None", "None"), ("Archived", "Archived")])
def test_a_stage_that_keeps_the_others(tracking: Tracking, stage: str, left: str):
    first, second = versions(tracking, 2)
    crown(tracking, first, stage)
    crown(tracking, second, stage)
    assert standing(tracking) == {1: (left, []), 2: (stage, ["champion"])}


def test_a_refused_stage_is_a_note_and_the_alias_moves(tracking: Tracking, tmp_path: Path):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    forbid(tmp_path, "UPDATE OF current_stage ON model_versions WHEN NEW.current_stage = 'Staging'")
    placed = crown(tracking, second)
    (note,) = placed.notes
    assert note.startswith("The registry refuses stages (")
    assert note.endswith("so the alias alone marks the version.")
    assert placed.stage == "None"
    assert standing(tracking) == {1: ("Staging", []), 2: ("None", ["champion"])}


@pytest.mark.parametrize(
    "refused",
    [
        "UPDATE ON registered_model_aliases WHEN NEW.version = 2",
        "DELETE ON registered_model_aliases",
        "INSERT ON model_version_tags WHEN NEW.key LIKE '%why'",
        "INSERT ON registered_model_tags WHEN NEW.key LIKE 'tuner.move.%2'",
    ],
    ids=["the alias", "the end of the challenger's alias", "a tag", "the log"],
)
def test_a_move_that_fails_half_way_leaves_all_as_it_was(tracking: Tracking, tmp_path: Path, refused: str):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    make_challenger(tracking, second)
    before = standing(tracking), tags(tracking, 1), tags(tracking, 2), model_tags(tracking)
    forbid(tmp_path, refused)
    with pytest.raises(TrackingError, match="does not move letters") as caught:
        crown(tracking, second)
    assert "\n" not in str(caught.value)
    assert (standing(tracking), tags(tracking, 1), tags(tracking, 2), model_tags(tracking)) == before


def test_rollback_brings_back_the_champion_before_and_says_so_on_both(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    crown(tracking, second, "Production")
    back = roll_back(tracking, "letters", alias="champion", why="wrong labels")
    assert (back.version, back.stage, back.notes) == ("1", "Production", ())
    assert standing(tracking) == {1: ("Production", ["champion"]), 2: ("Archived", [])}
    for number in (1, 2):
        written = {key: value for key, value in tags(tracking, number).items() if "rollback" in key}
        assert written.pop("tuner.rollback.at")
        assert written == {
            "tuner.rollback.from": "2",
            "tuner.rollback.to": "1",
            "tuner.rollback.why": "wrong labels",
        }
    with pytest.raises(ModelError, match="took the alias champion from no other version"):
        roll_back(tracking, "letters", alias="champion", why="again")


def test_rollback_that_fails_half_way_leaves_all_as_it_was(tracking: Tracking, tmp_path: Path):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    crown(tracking, second)
    before = standing(tracking), tags(tracking, 1), tags(tracking, 2)
    forbid(tmp_path, "UPDATE ON registered_model_aliases WHEN NEW.version = 1")
    with pytest.raises(TrackingError, match="does not move letters"):
        roll_back(tracking, "letters", alias="champion", why="")
    assert (standing(tracking), tags(tracking, 1), tags(tracking, 2)) == before


def test_rollback_to_a_deleted_version_is_a_sentence(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    crown(tracking, second)
    tracking.client().delete_model_version("letters", "1")
    with pytest.raises(ModelError, match=r"has no version 1: it has 2 \(champion\)"):
        roll_back(tracking, "letters", alias="champion", why="")
    assert standing(tracking) == {2: ("Staging", ["champion"])}


# The log and the way back --------------------------------------------------------------------------


def test_every_move_is_an_entry_of_the_log(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    crown(tracking, second, "Production", why="more ä" + "x" * 9000, by="someone", run_id="abc")
    back(tracking)
    log = model_tags(tracking)
    assert sorted(log) == ["tuner.move.0001", "tuner.move.0002", "tuner.move.0003"]
    entries = [json.loads(log[key]) for key in sorted(log)]
    assert all(entry.pop("at").endswith("+00:00") for entry in entries)
    forced = {"why": "more ä" + "x" * 1994, "by": "someone", "run": "abc", "stage": "Production"}
    assert entries == [
        {"alias": "champion", "kind": "promotion", "to": "1", "why": "better", "stage": "Staging"},
        {"alias": "champion", "kind": "promotion", "from": "1", "to": "2"} | forced,
        {"alias": "champion", "kind": "rollback", "from": "2", "to": "1", "why": "worse"}
        | {"stage": "Production"},
    ]
    assert "more ä" in log["tuner.move.0002"]
    assert len(tags(tracking, 2)["tuner.promotion.why"]) > 9000
    assert [move.target for move in list_moves(tracking, "letters").moves] == ["1", "2", "1"]


@pytest.mark.long
def test_rollbacks_walk_back_to_the_first_champion(tracking: Tracking):
    """After 1, 2, 3, 2 the champions before are 3, 2 and 1."""
    three = versions(tracking, 3)
    for number in (1, 2, 3, 2):
        crown(tracking, three[number - 1])
    walked = [(back(tracking).version, champion(tracking)) for _ in range(3)]
    assert walked == [("3", 3), ("2", 2), ("1", 1)]
    with pytest.raises(ModelError, match="nothing to roll back to"):
        back(tracking)
    assert champion(tracking) == 1


def test_a_promotion_after_a_rollback_is_taken_back_first(tracking: Tracking):
    first, second, third = versions(tracking, 3)
    for version in (first, second):
        crown(tracking, version)
    back(tracking)
    crown(tracking, third)
    assert back(tracking).version == "1"
    with pytest.raises(ModelError, match="nothing to roll back to"):
        back(tracking)


def test_each_alias_goes_back_its_own_way(tracking: Tracking):
    """Version 2 took the place of 1 as champion, and that of 3 as canary, of which nobody was both."""
    first, second, third, fourth = versions(tracking, 4)
    crown(tracking, first)
    move = Move("tried")
    for version in (third, second, fourth):
        make_champion(tracking, version, alias="canary", stage="None", move=move)
    crown(tracking, second)
    assert back(tracking).version == "1"
    assert [back(tracking, "canary").version for _ in range(2)] == ["2", "3"]
    with pytest.raises(ModelError, match="nothing to roll back to"):
        back(tracking)
    assert standing(tracking)[1] == ("Staging", ["champion"])
    assert standing(tracking)[3][1] == ["canary"]


def test_an_alias_moved_by_hand_goes_back_to_where_it_was(tracking: Tracking):
    first, second, third = versions(tracking, 3)
    for version in (first, second):
        crown(tracking, version)
    set_alias(tracking, "champion", third)
    assert [back(tracking).version for _ in range(2)] == ["2", "1"]


def test_a_promotion_over_a_version_set_by_hand_goes_back_to_it(tracking: Tracking):
    first, second, third = versions(tracking, 3)
    crown(tracking, first)
    set_alias(tracking, "champion", second)
    crown(tracking, third)
    assert [back(tracking).version for _ in range(2)] == ["2", "1"]


def test_a_move_that_ended_before_its_entry_leads_back_all_the_same(tracking: Tracking):
    """As when the process was killed between the two."""
    first, second, third = versions(tracking, 3)
    for version in (first, second):
        crown(tracking, version)
    tracking.client().delete_registered_model_tag("letters", "tuner.move.0002")
    assert back(tracking).version == "1"
    crown(tracking, second)
    crown(tracking, third)
    tracking.client().delete_registered_model_tag("letters", "tuner.move.0004")
    assert [back(tracking).version for _ in range(2)] == ["2", "1"]


def test_deleted_champions_are_passed_over_and_said(tracking: Tracking):
    first, second, third = versions(tracking, 3)
    for version in (first, second, third):
        crown(tracking, version)
    tracking.client().delete_model_version("letters", "2")
    placed = back(tracking)
    assert (placed.version, placed.notes) == ("1", ("Version 2 had champion since, and was deleted.",))


def test_moves_of_before_there_was_a_log_lead_back(tracking: Tracking):
    """Only the tags of versions tell of them, and these of the last move of each version alone."""
    first, second, third = versions(tracking, 3)
    for version in (first, second, third):
        crown(tracking, version)
    for key in model_tags(tracking):
        tracking.client().delete_registered_model_tag("letters", key)
    assert [move.target for move in list_moves(tracking, "letters").moves] == ["1", "2", "3"]
    assert [back(tracking).version for _ in range(2)] == ["2", "1"]
    with pytest.raises(ModelError, match="nothing to roll back to"):
        back(tracking)


def test_which_alias_an_old_move_was_of_is_not_guessed(tracking: Tracking):
    first, second = versions(tracking, 2)
    for version in (first, second):
        crown(tracking, version)
    for key in model_tags(tracking):
        tracking.client().delete_registered_model_tag("letters", key)
    set_alias(tracking, "canary", second)
    with pytest.raises(ModelError, match="took the alias canary from no other version"):
        back(tracking, "canary")


def test_entries_that_others_wrote_are_said(tracking: Tracking):
    first, second = versions(tracking, 2)
    for version in (first, second):
        crown(tracking, version)
    tracking.client().set_registered_model_tag("letters", "tuner.move.0007", "yes")
    tracking.client().set_registered_model_tag("letters", "tuner.move.last", "2")
    placed = back(tracking)
    assert placed.version == "1"
    note = "Entries of the log of moves could not be read: tuner.move.last, tuner.move.0007."
    assert placed.notes == (note,)
    assert "tuner.move.0008" in model_tags(tracking)


# Stages --------------------------------------------------------------------------------------------


def test_a_rollback_leaves_a_version_that_was_put_into_production_by_hand(tracking: Tracking):
    first, second, third = versions(tracking, 3)
    for version in (first, second):
        crown(tracking, version, "Production")
    set_stage(tracking, third, "Production")
    placed = back(tracking)
    assert standing(tracking) == {
        1: ("Production", ["champion"]),
        2: ("Archived", []),
        3: ("Production", []),
    }
    assert placed.notes == ("In Production beside it, as before: version 3.",)


def test_a_rollback_does_not_lower_the_stage_of_its_target(tracking: Tracking):
    first, second = versions(tracking, 2)
    for version in (first, second):
        crown(tracking, version)
    set_stage(tracking, first, "Production")
    placed = back(tracking)
    assert standing(tracking) == {1: ("Production", ["champion"]), 2: ("Archived", [])}
    note = "Version 1 stays in Production, where it was before it got champion."
    assert (placed.stage, placed.notes) == ("Production", (note,))


def test_the_stage_that_came_with_the_alias_goes_with_it(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    crown(tracking, second, "Production")
    assert standing(tracking) == {1: ("Archived", []), 2: ("Production", ["champion"])}


def test_a_champion_put_into_production_by_hand_stays_there(tracking: Tracking):
    first, second, third = versions(tracking, 3)
    for version in (first, second):
        crown(tracking, version)
    set_stage(tracking, second, "Production")
    placed = crown(tracking, third)
    assert placed.notes == ("Version 2 stays in Production, where it was put by hand.",)
    assert back(tracking).notes == ("Version 2 stays in Production, where it was before it got champion.",)
    placed = back(tracking)
    assert placed.notes == ("Version 2 stays in Production, where it was put by hand.",)
    assert standing(tracking)[1] == ("Staging", ["champion"])
    assert standing(tracking)[2] == ("Production", [])


def test_a_promotion_leaves_other_versions_in_its_stage(tracking: Tracking):
    first, second, third = versions(tracking, 3)
    set_stage(tracking, third, "Staging")
    crown(tracking, first)
    crown(tracking, second)
    assert standing(tracking) == {1: ("Archived", []), 2: ("Staging", ["champion"]), 3: ("Staging", [])}


def test_a_version_with_another_alias_is_not_archived(tracking: Tracking):
    first, second = versions(tracking, 2)
    crown(tracking, first)
    set_alias(tracking, "canary", first)
    placed = crown(tracking, second)
    assert placed.notes[0] == "Version 1 stays in Staging, for it is canary as well."
    assert standing(tracking)[1] == ("Staging", ["canary"])


# Two at once ---------------------------------------------------------------------------------------


def test_a_place_that_another_took_meanwhile_is_left_to_it(tracking: Tracking):
    first, second, third = versions(tracking, 3)
    crown(tracking, first)
    crown(tracking, second)
    before = standing(tracking), model_tags(tracking), tags(tracking, 3)
    with pytest.raises(AliasMovedError) as caught:
        make_champion(
            tracking, third, alias="champion", stage="Staging", move=Move("better than 1"), replacing="1"
        )
    assert str(caught.value) == (
        "The alias champion of letters was held by version 1 and is held by version 2 now: it was moved by "
        "somebody else meanwhile, and was left there."
    )
    assert (standing(tracking), model_tags(tracking), tags(tracking, 3)) == before
    with pytest.raises(AliasMovedError, match="was held by no version and is held by version 2 now"):
        make_champion(
            tracking, third, alias="champion", stage="Staging", move=Move("the first"), replacing=None
        )


@pytest.mark.timeout(600)
def test_of_first_versions_that_come_at_once_one_takes_the_place(tracking: Tracking):
    several = versions(tracking, 4)
    outcomes: list[str] = []
    start = threading.Barrier(len(several))

    def take(version: ModelVersion) -> None:
        start.wait()
        try:
            make_champion(
                tracking, version, alias="champion", stage="Staging", move=Move("the first"), replacing=None
            )
            outcomes.append("moved")
        except AliasMovedError:
            outcomes.append("left")

    threads = [threading.Thread(target=take, args=(version,)) for version in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["left", "left", "left", "moved"]
    assert list(model_tags(tracking)) == ["tuner.move.0001"]
    (winner,) = [number for number, (_, aliases) in standing(tracking).items() if aliases]
    assert standing(tracking)[winner] == ("Staging", ["champion"])
    assert sum(bool(tags(tracking, number)) for number in range(1, 5)) == 1
