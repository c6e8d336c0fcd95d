from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import FinishedSearch
from tuner.base.errors import ExperimentError, TrackingError
from tuner.experiment.schema import Experiment
from tuner.searches.resume import (
    LAST,
    EarlierSearch,
    check_same,
    check_same_images,
    check_unfinished,
    ended_trials,
    find_search,
)
from tuner.tracking.store import Tracking

pytestmark = pytest.mark.usefixtures("search_store")

# What a resumed search may have changed, by its place in the experiment; the rest decides what it finds.
FREE = {
    ("cache",): "elsewhere",
    ("registry", "name"): "other",
    ("gate", "min_gain"): 0.5,
    ("search", "max_evals"): 99,
    ("search", "parallelism"): 1,
    ("search", "early_stop"): 5,
    ("search", "timeout"): 60,
    ("search", "trial_timeout"): 60,
}
DECISIVE = {
    ("name",): "other",
    ("images",): "elsewhere",
    ("on_bad_image",): "fail",
    ("precision",): "bfloat16",
    ("split", "test"): "1/5",
    ("search", "seed"): 7,
    ("search", "metric"): "f1",
    ("search", "maxIter"): "3:13:linear",
    ("search", "algorithm"): "random",
}


@pytest.fixture
def earlier(finished_search: FinishedSearch) -> EarlierSearch:
    return find_search(finished_search.parent().info.run_id)


def changed(earlier: EarlierSearch, places: dict[tuple[str, ...], object]) -> EarlierSearch:
    """The search, as if its experiment had had other values at these places."""
    data = earlier.experiment.to_yaml_dict()
    for (*groups, key), value in places.items():
        inner = data
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[key] = value
    return replace(earlier, experiment=type(earlier.experiment)(**data))


def test_a_search_is_found_by_its_run_and_as_the_last(
    earlier: EarlierSearch, finished_search: FinishedSearch
) -> None:
    parent = finished_search.parent()
    assert earlier.run_id == parent.info.run_id
    assert earlier.experiment.name == "letters"
    assert earlier.data_digest == parent.data.tags["tuner.data_digest"]
    last = find_search(LAST, parent.info.experiment_id)
    assert last.experiment.name == "letters"


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("0" * 32, "cannot be resumed: "),
        ("a trial", "is no search: give the id that it showed, or last"),
    ],
)
def test_what_is_no_search_is_one_sentence(
    finished_search: FinishedSearch, which: str, sentence: str
) -> None:
    run_id = finished_search.trials()[0].info.run_id if which == "a trial" else which
    with pytest.raises(TrackingError, match=sentence) as caught:
        find_search(run_id)
    assert "\n" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.sets(st.sampled_from(sorted(FREE))), st.sets(st.sampled_from(sorted(DECISIVE))))
def test_what_decides_a_trial_may_not_change(
    earlier: EarlierSearch, free: set[tuple[str, ...]], decisive: set[tuple[str, ...]]
) -> None:
    other = changed(earlier, {place: (FREE | DECISIVE)[place] for place in free | decisive})
    if not decisive:
        check_same(earlier, other.experiment)
        return
    with pytest.raises(ExperimentError, match="cannot be resumed with another experiment") as caught:
        check_same(earlier, other.experiment)
    for place in FREE | DECISIVE:
        assert (f"{'.'.join(place)} was " in str(caught.value)) == (place in decisive)


def test_a_resumed_search_has_the_same_images(earlier: EarlierSearch) -> None:
    check_same_images(earlier, str(earlier.data_digest))
    check_same_images(replace(earlier, data_digest=None), "any, where it had not come so far")
    with pytest.raises(ExperimentError, match="its images were added to, removed, changed"):
        check_same_images(earlier, "another digest")


def test_the_trials_that_ended_come_back_by_number(
    earlier: EarlierSearch, finished_search: FinishedSearch
) -> None:
    found = ended_trials(earlier)
    assert [result.trial for result in found] == [1, 2, 3, 4, 5]
    runs = {run.info.run_id: run for run in finished_search.trials()}
    assert {result.run_id for result in found} == set(runs)
    for result in found:
        assert result.metrics["accuracy"] == runs[str(result.run_id)].data.metrics["accuracy"]


def test_a_fine_tuning_goes_on_with_its_own_settings_and_a_search_with_its_own() -> None:
    data = {"name": "a", "images": "b", "search": {"backbone": "VGG16"}}
    before = Experiment.model_validate(data)
    earlier = EarlierSearch(Tracking("sqlite://", "0"), "r", before, None, "KILLED", datetime.now())
    longer = Experiment.model_validate(data | {"fine_tune": {"epochs": 9}})
    fixed = Experiment.model_validate(data | {"search": {"backbone": "VGG16", "regParam": 0.1}})
    seeded = Experiment.model_validate(data | {"search": {"backbone": "VGG16", "seed": 7}})
    check_same(earlier, longer)
    with pytest.raises(ExperimentError, match=r"search\.regParam was"):
        check_same(earlier, fixed)
    trained = replace(earlier, experiment=before.for_tuning())
    check_same(trained, fixed.for_tuning(), tunes=True)
    with pytest.raises(ExperimentError, match=r"fine_tune\.epochs was 50 and is 9"):
        check_same(trained, longer.for_tuning(), tunes=True)
    with pytest.raises(ExperimentError, match=r"fine_tune\.seed was 42 and is 7"):
        check_same(trained, seeded.for_tuning(), tunes=True)


def test_a_fine_tuning_that_came_to_its_end_is_not_gone_on_with(earlier: EarlierSearch) -> None:
    check_unfinished(replace(earlier, status="KILLED"))
    with pytest.raises(
        ExperimentError, match=f"The fine-tuning {earlier.run_id} has come to its end, and nothing"
    ):
        check_unfinished(replace(earlier, status="FINISHED"))
