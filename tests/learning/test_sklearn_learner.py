import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from tests.learning.samples import sample, setting
from tuner.learning.state import make_learner


@pytest.mark.parametrize("name", ["sklearn.SGD", "sklearn.GaussianNB"])
def test_features_are_scaled_by_all_that_were_seen(name: str) -> None:
    features, label = sample()
    learner = make_learner(setting(name))
    for start in range(0, 400, 70):
        learner.learn(features[start : start + 70], label[start : start + 70])
    scaler, expected = learner.head().pipeline.named_steps["prestep"], StandardScaler().fit(features)
    np.testing.assert_allclose(scaler.mean_, expected.mean_, rtol=1e-6)
    np.testing.assert_allclose(scaler.scale_, expected.scale_, rtol=1e-6)


def test_counts_are_learned_as_they_are() -> None:
    features, label = sample(counts=True)
    learner = make_learner(setting("sklearn.MultinomialNB", alpha=0.5))
    learner.learn(features[:100], label[:100])
    learner.learn(features[100:], label[100:])
    pipeline = learner.head().pipeline
    assert pipeline.named_steps["prestep"] == "passthrough"
    assert pipeline.named_steps["classifier"].alpha == 0.5
    whole = make_learner(setting("sklearn.MultinomialNB", alpha=0.5))
    whole.learn(features, label)
    np.testing.assert_allclose(learner.head().score(features), whole.head().score(features), atol=1e-6)
