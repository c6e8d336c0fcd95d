from tests.helpers.training import small_plan
from tuner.experiment.training.fine_tuning import PRESETS, FineTune
from tuner.training.plan import plan_of


def test_two_phases_in_turn() -> None:
    plan = small_plan(warm_up_epochs=3, epochs=4, learning_rate=0.5)
    assert [(phase.name, phase.first, phase.last) for phase in plan.phases] == [
        ("warm-up", 1, 3),
        ("tuning", 4, 7),
    ]
    assert [phase.unfreeze for phase in plan.phases] == ["none", "last"]
    assert [plan.phase_of(epoch).name for epoch in (1, 3, 4, 7)] == ["warm-up"] * 2 + ["tuning"] * 2
    assert plan.epochs == 7
    assert plan.phases[1].learning_rate == 0.5


def test_a_phase_without_epochs_is_none() -> None:
    assert [phase.name for phase in small_plan(warm_up_epochs=0).phases] == ["tuning"]
    only = small_plan(epochs=0)
    assert [phase.name for phase in only.phases] == ["warm-up"]
    assert only.epochs == 2


def test_what_was_drawn_takes_the_place_of_what_is_searched() -> None:
    settings = FineTune.model_validate(
        {
            "learning_rate": "1e-4:1e-2",
            "augment": "strong",
            "augment_strength": [0, 0.5],
            "unfreeze": "all,2",
        }
    )
    drawn = {"learning_rate": 0.003, "augment_strength": 0.5, "unfreeze": 2}
    plan = plan_of(settings, drawn, "accuracy", 1)
    assert plan.phases[1].learning_rate == 0.003
    assert plan.phases[1].unfreeze == 2
    assert plan.phases[0].learning_rate == 1e-3
    assert plan.augment == PRESETS["strong"].times(0.5)
    assert plan.dropout == 0.5
