"""scikit-learn's classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.classifiers.rows.row import Classifier, chosen, counted, ranged
from tuner.classifiers.space import Parameter, Value

_TREES = counted("n_estimators", 50, 300)
_DEPTH = counted("max_depth", 2, 30)
_LEAF = counted("min_samples_leaf", 1, 8, simpler="larger")
_CRITERION = chosen("criterion", "gini", "entropy")
_SHARE = chosen("max_features", "sqrt", "log2")
_RATE = ranged("learning_rate", 0.02, 0.3, 1e-9, log=True)
_POSITIVE = 1e-9  # the lowest where a library wants more than 0
_STRENGTHS = ("0.001", "0.01", "1", "10")  # which the spot-check tries of linear ones


def _sklearn(name: str, title: str, implementation: str, *parameters: Parameter, **more: Any) -> Classifier:
    spots = more.pop("spots", {name: {}})
    return Classifier(
        f"sklearn.{name}",
        f"scikit-learn's {title}",
        "sklearn",
        implementation,
        parameters,
        fits=("worker",),
        spots={f"sklearn.{spot}": values for spot, values in spots.items()},
        **more,
    )


def _hundred(name: str, **more: Value) -> dict[str, Mapping[str, Value]]:
    return {f"{name}-100": {"n_estimators": 100, **more}}


SKLEARN = (
    _sklearn(
        "LogisticRegression",
        "logistic regression",
        "linear_model.LogisticRegression",
        ranged("C", 1e-4, 100, _POSITIVE, simpler="smaller", log=True),
        fixed={"max_iter": 1000},
        cost=4,
        spots={"LogisticRegression": {"C": 1.0}},
    ),
    _sklearn(
        "SGD",
        "linear support vector machine by stochastic gradient descent",
        "linear_model.SGDClassifier",
        ranged("alpha", 1e-6, 1e-1, 0, simpler="larger", log=True),
        chosen("penalty", "l2", "l1", "elasticnet"),
        fixed={"loss": "hinge"},
        gives="decision",
        seeded=True,
        incremental=True,
        spots={"SGD": {"alpha": 1e-4, "penalty": "l2"}},
    ),
    _sklearn(
        "PassiveAggressive",
        "passive-aggressive classifier",
        "linear_model.SGDClassifier",
        ranged("eta0", 1e-4, 10, _POSITIVE, simpler="smaller", log=True),
        # Its own class goes in scikit-learn 1.10; this is the same.
        fixed={"loss": "hinge", "penalty": None, "learning_rate": "pa1"},
        gives="decision",
        seeded=True,
        incremental=True,
        spots={"PassiveAggressive": {"eta0": 1.0}},
    ),
    _sklearn(
        "DecisionTree",
        "decision tree",
        "tree.DecisionTreeClassifier",
        _DEPTH,
        _LEAF,
        _CRITERION,
        seeded=True,
        cost=2,
    ),
    _sklearn(
        "ExtraTree",
        "extremely randomized tree",
        "tree.ExtraTreeClassifier",
        _DEPTH,
        _LEAF,
        _CRITERION,
        seeded=True,
        cost=0.5,
    ),
    _sklearn(
        "AdaBoost",
        "AdaBoost",
        "ensemble.AdaBoostClassifier",
        counted("n_estimators", 20, 200),
        ranged("learning_rate", 0.05, 2, _POSITIVE, log=True),
        seeded=True,
        cost=40,
        spots=_hundred("AdaBoost", learning_rate=1.0),
    ),
    _sklearn(
        "Bagging",
        "bagged decision trees",
        "ensemble.BaggingClassifier",
        counted("n_estimators", 10, 100),
        ranged("max_samples", 0.3, 1, _POSITIVE, 1),
        seeded=True,
        cost=100,
        spots=_hundred("Bagging", max_samples=1.0),
    ),
    _sklearn(
        "RandomForest",
        "random forest",
        "ensemble.RandomForestClassifier",
        _TREES,
        _DEPTH,
        _SHARE,
        seeded=True,
        cost=6,
        spots=_hundred("RandomForest"),
    ),
    _sklearn(
        "ExtraTrees",
        "extremely randomized trees",
        "ensemble.ExtraTreesClassifier",
        _TREES,
        _DEPTH,
        _SHARE,
        seeded=True,
        cost=5,
        spots=_hundred("ExtraTrees"),
    ),
    _sklearn(
        "GradientBoosting",
        "gradient-boosted trees",
        "ensemble.GradientBoostingClassifier",
        counted("n_estimators", 20, 150),
        counted("max_depth", 2, 5),
        _RATE,
        seeded=True,
        cost=1000,
        spots=_hundred("GradientBoosting", max_depth=3, learning_rate=0.1),
    ),
    _sklearn(
        "HistGradientBoosting",
        "histogram-based gradient-boosted trees",
        "ensemble.HistGradientBoostingClassifier",
        counted("max_iter", 20, 150),
        counted("max_leaf_nodes", 7, 63, 2),
        _RATE,
        fixed={"early_stopping": False},  # else it holds images back by chance, where there are many
        seeded=True,
        cost=200,
        spots={"HistGradientBoosting": {"max_iter": 100, "max_leaf_nodes": 31, "learning_rate": 0.1}},
    ),
    _sklearn(
        "KNeighbors",
        "k-nearest neighbours",
        "neighbors.KNeighborsClassifier",
        counted("n_neighbors", 3, 24, simpler="larger", at_most=("images",)),
        chosen("weights", "uniform", "distance", default=("uniform",)),
        weighted=False,
        spots={f"KNeighbors-{k}": {"n_neighbors": k} for k in range(3, 25)},
    ),
    _sklearn(
        "LinearSVC",
        "linear support vector machine",
        "svm.LinearSVC",
        ranged("C", 1e-4, 10, _POSITIVE, simpler="smaller", log=True),
        gives="decision",
        seeded=True,
        cost=8,
        spots={f"LinearSVC-{C}": {"C": float(C)} for C in _STRENGTHS},
    ),
    _sklearn(
        "Ridge",
        "ridge classifier",
        "linear_model.RidgeClassifier",
        ranged("alpha", 1e-3, 1e4, 0, simpler="larger", log=True),
        gives="decision",
        seeded=True,
        spots={f"Ridge-{alpha}": {"alpha": float(alpha)} for alpha in _STRENGTHS},
    ),
    # What a spot-check does not try: its forty are the source's.
    _sklearn(
        "Perceptron",
        "perceptron",
        "linear_model.Perceptron",
        ranged("alpha", 1e-6, 1e-1, 0, simpler="larger", log=True),
        chosen("penalty", "l2", "l1", "elasticnet"),
        gives="decision",
        seeded=True,
        incremental=True,
        spots={},
    ),
    _sklearn(
        "GaussianNB",
        "Gaussian naive Bayes",
        "naive_bayes.GaussianNB",
        ranged("var_smoothing", 1e-9, 1e-1, 0, simpler="larger", log=True),
        incremental=True,
        spots={},
    ),
    _sklearn(
        "MultinomialNB",
        "multinomial naive Bayes",
        "naive_bayes.MultinomialNB",
        ranged("alpha", 1e-3, 10, 0, simpler="larger", log=True),
        incremental=True,
        of_counts=True,
        spots={},
    ),
    _sklearn(
        "MLP",
        "multilayer perceptron",
        "neural_network.MLPClassifier",
        counted("hidden_layer_sizes", 16, 256, log=True),
        ranged("alpha", 1e-6, 1, 0, simpler="larger", log=True),
        ranged("learning_rate_init", 1e-4, 1e-1, _POSITIVE, log=True),
        seeded=True,
        incremental=True,
        cost=50,
        spots={},
    ),
)
