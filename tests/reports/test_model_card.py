import numpy as np
import pandas as pd
import pytest

from tuner.evaluation.metrics import evaluate
from tuner.reports.model_card import DESCRIPTION_LENGTH, ModelFacts, model_card, short_card, wilson


def facts(labels: tuple[str, ...] = ("cat", "<b>|dog"), **changes) -> ModelFacts:
    """Three test images of each class, one of the first class called the second."""
    truth = np.repeat(np.arange(len(labels)), 3)
    said = truth.copy()
    said[0] = 1
    parts = ["test"] * 3 + ["train"] * 4 + ["validation"]
    split = pd.DataFrame([(label, part) for label in labels for part in parts], columns=["label", "part"])
    given = {
        "name": "my pets",
        "version": "7",
        "alias": "champion",
        "images": "/data/pets",
        "data_digest": "abc123",
        "split": split,
        "network": "VGG16",
        "own_network": False,
        "kind": "logistic regression on the features of VGG16",
        "gives": "probability",
        "chosen": "regParam 0.1, elasticNetParam 0.5, maxIter 7",
        "validation": ("accuracy", 0.9),
        "test": evaluate(truth, np.eye(len(labels))[said], labels),
    }
    return ModelFacts(**given | changes)


def test_the_interval_is_wilsons():
    """Wilson, Journal of the American Statistical Association 22 (1927); 8 of 10 by hand."""
    z, p, n = 1.959964, 0.8, 10
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(8, 10) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_the_card_tells_data_worth_origin_and_use():
    card = model_card(facts())
    for text in (
        "# my pets, version 7",
        "It calls 5 of 6 test images right: accuracy 0.8333, 95 % interval 0.4365 to 0.9699",
        "VGG16, whose published weights are licensed CC-BY-4.0",
        "regParam 0.1, elasticNetParam 0.5, maxIter 7; accuracy 0.9000 in validation",
        "/data/pets (digest abc123)",
        "| cat | 5 | 3 | 0.667 (0.208 to 0.939) |",
        r"| &lt;b&gt;\|dog | 5 | 3 | 1.000 (0.439 to 1.000) |",
        "| accuracy | 0.8333 |",
        "| cat | 2 | 1 |",
        "tuner predict 'models:/my pets/7' IMAGE.jpg",
        "mlflow models serve -m 'models:/my pets/7'",
        "curl -s http://127.0.0.1:5001/invocations",
        "mlflow.pyfunc.load_model('models:/my pets/7')",
    ):
        assert text in card
    assert "<b>" not in card


def test_a_network_of_ones_own_has_ones_own_terms_whatever_its_name():
    assert "a network of your own" in model_card(facts(own_network=True))
    assert "a network of your own" in model_card(facts(network="mine"))


def test_a_class_without_test_images_has_no_recall():
    one = facts()
    test = evaluate(np.array([1, 1]), np.eye(2)[[1, 1]], one.test.labels)
    assert "| cat | 5 | 3 |  |" in model_card(facts(test=test))


@pytest.mark.parametrize(
    ("classes", "left"), [(2, "Rows are true"), (30, "## Classes"), (300, "## On the")]
)
def test_the_registry_gets_as_much_as_it_keeps(classes: int, left: str):
    labels = tuple(f"class number {number}" for number in range(classes))
    text = short_card(facts(labels))
    assert len(text) <= DESCRIPTION_LENGTH
    assert left in text
    assert "## How to call it" in text
    assert ("whole card is `model_card.md`" in text) == (classes > 2)


def test_whatever_is_too_long_is_cut():
    assert len(short_card(facts(images="x" * 6000))) == DESCRIPTION_LENGTH


def test_the_card_names_the_classifier_and_says_that_it_gives_no_probabilities() -> None:
    truth = np.repeat([0, 1], 3)
    test = evaluate(truth, np.eye(2)[truth], ("cat", "dog"), "decision")
    kind = "scikit-learn's ridge classifier on the features of VGG16"
    card = model_card(facts(("cat", "dog"), kind=kind, chosen="alpha 2", gives="decision", test=test))
    assert f"of 2 classes: {kind}. It calls 6 of 6" in card
    assert "Parameters: alpha 2; accuracy" in card
    assert "It gives no probabilities: its answers have `decision`" in card
    assert "logLoss" not in card
    assert "no probabilities" not in model_card(facts())
