"""River's classifiers, which learn a batch or an image at a time."""

from __future__ import annotations

from tuner.classifiers.rows.row import Classifier, ranged

RIVER = (
    Classifier(
        "river.LogisticRegression",
        "River's logistic regression, one class against the rest",
        "river",
        "linear_model.LogisticRegression",
        (
            ranged("lr", 1e-3, 1, 1e-9, log=True),  # of its optimizer, `optim.SGD`
            ranged("intercept_lr", 1e-3, 1, 0, log=True),
            ranged("l2", 1e-6, 1e-1, 0, simpler="larger", log=True),
        ),
        fits=(),
        one_vs_rest=True,
        weighted=False,
        incremental=True,
    ),
)
