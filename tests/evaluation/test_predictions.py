import numpy as np

from tuner.evaluation.predictions import Scored, predictions_table


def test_the_predictions_table_tells_each_image():
    probability = np.array([[0.25, 0.75], [0.6, 0.4]])
    table = predictions_table(Scored(["a.png", "b.png"], np.array([1.0, 1.0]), probability), ("cat", "dog"))
    assert table.to_dict("list") == {
        "path": ["a.png", "b.png"],
        "label": ["dog", "dog"],
        "prediction": ["dog", "cat"],
        "probability": [0.75, 0.6],
        "correct": [True, False],
    }


def test_decision_values_are_called_so() -> None:
    scored = Scored(["a.png"], np.array([1]), np.array([[-2.0, 7.5]]), "decision")
    table = predictions_table(scored, ("cat", "dog"))
    assert list(table.columns) == ["path", "label", "prediction", "decision", "correct"]
    assert table["decision"].tolist() == [7.5]
