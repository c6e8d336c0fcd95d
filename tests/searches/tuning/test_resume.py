from datetime import datetime

import pytest

from tuner.base.errors import ExperimentError
from tuner.experiment.schema import Experiment
from tuner.searches.resume import EarlierSearch, check_same
from tuner.tracking.store import Tracking


def test_a_fine_tuning_goes_on_with_its_own_settings_and_a_search_with_its_own() -> None:
    data = {"name": "a", "images": "b", "search": {"backbone": "VGG16"}}
    before = Experiment.model_validate(data)
    earlier = EarlierSearch(Tracking("sqlite://", "0"), "r", before, None, "KILLED", datetime.now())
    longer = Experiment.model_validate(data | {"fine_tune": {"epochs": 9}})
    fixed = Experiment.model_validate(data | {"search": {"backbone": "VGG16", "regParam": 0.1}})
    seeded = Experiment.model_validate(data | {"search": {"backbone": "VGG16", "seed": 7}})
    check_same(earlier, longer)
    check_same(earlier, fixed, tunes=True)
    with pytest.raises(ExperimentError, match=r"fine_tune\.epochs was 50 and is 9"):
        check_same(earlier, longer, tunes=True)
    with pytest.raises(ExperimentError, match=r"search\.seed was 42 and is 7"):
        check_same(earlier, seeded, tunes=True)
    with pytest.raises(ExperimentError, match=r"search\.regParam was"):
        check_same(earlier, fixed)
