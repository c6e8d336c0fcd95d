"""The one table of classifiers: name, library, parameters with their values, where each fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tuner.base.choices import ScoreKind
from tuner.classifiers.space import Parameter, ParamSpace, Value, nearest

Library = Literal["mllib", "sklearn"]
Place = Literal["worker", "spark"]

DEFAULT = "LogisticRegression"
"""What is fitted where an experiment names no classifier."""

PRESTEP, COMPONENTS = "prestep", "k"
NONE, PCA = "none", "PCA"
PRESTEPS: tuple[str, ...] = (NONE, "StandardScaler", "Normalizer", PCA)
"""What may be done to features before scikit-learn's classifiers."""

MODEL_TYPE = "modelType"
NOT_NEGATIVE = ("multinomial", "complement")  # values of `modelType` that take no negative features


def _range(
    name: str, low: float, high: float, lowest: float = 0, highest: float = float("inf"), **more: Any
) -> Parameter:
    space = ParamSpace(low=low, high=high, log=more.get("log", False))
    return Parameter(name, space, lowest, highest, **more)


def _count(
    name: str, low: int, high: int, lowest: int = 1, highest: int = 2**31 - 1, **more: Any
) -> Parameter:
    return _range(name, low, high, lowest, highest, **({"simpler": "smaller"} | more), whole=True)


def _choice(name: str, *choices: str, default: tuple[str, ...] = (), **more: Any) -> Parameter:
    return Parameter(name, ParamSpace(values=default or choices), choices=choices, **more)


@dataclass(frozen=True)
class Classifier:
    """A row of the table.

    Attributes
    ----------
    name
        As the experiment, the command line and MLflow have it: MLlib's own, or `sklearn.` and a name.
    title
        For a person: ``MLlib's random forest``.
    library
        Whose it is.
    implementation
        Its class, with the module below the library.
    parameters
        What is searched, in the order in which `one-standard-error` looks at it.
    fixed
        What it is given besides.
    gives
        What it says of an image: probabilities, or decision values of any size.
    fits
        Where it can be fitted; of two places the first is the rule.
    one_vs_rest
        Whether it knows two classes only, so that one of them is fitted for each class (MLlib's
        `OneVsRest`).
    weighted
        Whether rows may have weights, as `class_weight` gives them.
    seeded
        Whether chance has a part in the fit, and `search.seed` decides it.
    cost
        How long it takes beside others, roughly: a spot-check begins with the slow ones.
    spots
        What a spot-check tries of it: values by name. Those not named are left to the library.
    """

    name: str
    title: str
    library: Library
    implementation: str
    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    gives: ScoreKind = "probability"
    fits: tuple[Place, ...] = ("spark",)
    one_vs_rest: bool = False
    weighted: bool = True
    seeded: bool = False
    cost: float = 1
    spots: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, Parameter]:
        """Its parameters by their names."""
        return {parameter.name: parameter for parameter in self.parameters}


_REG = _range("regParam", 1e-4, 1.0, simpler="larger", log=True)

_MLLIB = (
    Classifier(
        DEFAULT,
        "MLlib's logistic regression",
        "mllib",
        "classification.LogisticRegression",
        (_REG, _range("elasticNetParam", 0.0, 1.0, 0, 1, simpler="larger"), _count("maxIter", 5, 30, 0)),
        fits=("worker", "spark"),
        spots={DEFAULT: {"regParam": 0.01, "elasticNetParam": 0.0, "maxIter": 100}},
    ),
    Classifier(
        "LinearSVC",
        "MLlib's linear support vector machine, one class against the rest",
        "mllib",
        "classification.LinearSVC",
        (_REG, _count("maxIter", 5, 50, 0)),
        gives="decision",
        one_vs_rest=True,
        cost=20,
        spots={"LinearSVC": {}},
    ),
    Classifier(
        "DecisionTree",
        "MLlib's decision tree",
        "mllib",
        "classification.DecisionTreeClassifier",
        (
            _count("maxDepth", 2, 12, 0, 30),
            _count("minInstancesPerNode", 1, 8, simpler="larger"),
            _choice("impurity", "gini", "entropy"),
        ),
        seeded=True,
        cost=15,
        spots={"DecisionTree": {}},
    ),
    Classifier(
        "RandomForest",
        "MLlib's random forest",
        "mllib",
        "classification.RandomForestClassifier",
        (_count("numTrees", 20, 200), _count("maxDepth", 3, 12, 0, 30)),
        seeded=True,
        cost=20,
        spots={"RandomForest-100": {"numTrees": 100}},
    ),
    Classifier(
        "GBT",
        "MLlib's gradient-boosted trees, one class against the rest",
        "mllib",
        "classification.GBTClassifier",
        (
            _count("maxIter", 5, 30, 1),
            _count("maxDepth", 2, 5, 0, 30),
            _range("stepSize", 0.05, 0.5, 1e-9, 1, log=True),
        ),
        gives="decision",
        one_vs_rest=True,
        seeded=True,
        cost=200,
        spots={"GBT": {}},
    ),
    Classifier(
        "NaiveBayes",
        "MLlib's naive Bayes",
        "mllib",
        "classification.NaiveBayes",
        (
            # MLlib's own default is multinomial, which takes no negative features.
            _choice(MODEL_TYPE, "gaussian", *NOT_NEGATIVE, default=("gaussian",)),
            _range("smoothing", 1e-3, 10, log=True, simpler="larger", only_with=(MODEL_TYPE, NOT_NEGATIVE)),
        ),
        fixed={MODEL_TYPE: "gaussian"},
        cost=5,
        spots={"NaiveBayes": {MODEL_TYPE: "gaussian"}},
    ),
    Classifier(
        "MultilayerPerceptron",
        "MLlib's multilayer perceptron",
        "mllib",
        "classification.MultilayerPerceptronClassifier",
        (_count("hiddenSize", 8, 128, log=True), _count("maxIter", 20, 150)),
        weighted=False,
        seeded=True,
        cost=20,
        spots={"MultilayerPerceptron": {"hiddenSize": 64}},
    ),
    Classifier(
        "FM",
        "MLlib's factorization machine, one class against the rest",
        "mllib",
        "classification.FMClassifier",
        (
            _range("regParam", 1e-6, 1e-1, simpler="larger", log=True),
            _count("factorSize", 2, 16, 0),
            _count("maxIter", 20, 100, 0),
            _range("stepSize", 1e-3, 1, 1e-9, log=True),
        ),
        gives="decision",
        one_vs_rest=True,
        weighted=False,
        seeded=True,
        cost=100,
        spots={"FM": {}},
    ),
)

_PRESTEP = (
    _choice(PRESTEP, *PRESTEPS, default=(NONE,)),
    _count(COMPONENTS, 8, 64, only_with=(PRESTEP, (PCA,)), at_most=("images", "features")),
)
_TREES = _count("n_estimators", 50, 300)
_DEPTH = _count("max_depth", 2, 30)
_LEAF = _count("min_samples_leaf", 1, 8, simpler="larger")
_CRITERION = _choice("criterion", "gini", "entropy")
_SHARE = _choice("max_features", "sqrt", "log2")
_RATE = _range("learning_rate", 0.02, 0.3, 1e-9, log=True)
_POSITIVE = 1e-9  # the lowest where a library wants more than 0
_STRENGTHS = ("0.001", "0.01", "1", "10")  # which the spot-check tries of linear ones


def _sklearn(name: str, title: str, implementation: str, *parameters: Parameter, **more: Any) -> Classifier:
    spots = more.pop("spots", {name: {}})
    return Classifier(
        f"sklearn.{name}",
        f"scikit-learn's {title}",
        "sklearn",
        implementation,
        (*parameters, *_PRESTEP),
        fits=("worker",),
        spots={f"sklearn.{spot}": values for spot, values in spots.items()},
        **more,
    )


def _hundred(name: str) -> dict[str, Mapping[str, Value]]:
    return {f"{name}-100": {"n_estimators": 100}}


_SKLEARN = (
    _sklearn(
        "LogisticRegression",
        "logistic regression",
        "linear_model.LogisticRegression",
        _range("C", 1e-4, 100, _POSITIVE, simpler="smaller", log=True),
        fixed={"max_iter": 1000},
        cost=4,
    ),
    _sklearn(
        "SGD",
        "linear support vector machine by stochastic gradient descent",
        "linear_model.SGDClassifier",
        _range("alpha", 1e-6, 1e-1, 0, simpler="larger", log=True),
        _choice("penalty", "l2", "l1", "elasticnet"),
        fixed={"loss": "hinge"},
        gives="decision",
        seeded=True,
    ),
    _sklearn(
        "PassiveAggressive",
        "passive-aggressive classifier",
        "linear_model.SGDClassifier",
        _range("eta0", 1e-4, 10, _POSITIVE, simpler="smaller", log=True),
        # Its own class goes in scikit-learn 1.10; this is the same.
        fixed={"loss": "hinge", "penalty": None, "learning_rate": "pa1"},
        gives="decision",
        seeded=True,
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
        _count("n_estimators", 20, 200),
        _range("learning_rate", 0.05, 2, _POSITIVE, log=True),
        seeded=True,
        cost=40,
        spots=_hundred("AdaBoost"),
    ),
    _sklearn(
        "Bagging",
        "bagged decision trees",
        "ensemble.BaggingClassifier",
        _count("n_estimators", 10, 100),
        _range("max_samples", 0.3, 1, _POSITIVE, 1),
        seeded=True,
        cost=100,
        spots=_hundred("Bagging"),
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
        _count("n_estimators", 20, 150),
        _count("max_depth", 2, 5),
        _RATE,
        seeded=True,
        cost=1000,
        spots=_hundred("GradientBoosting"),
    ),
    _sklearn(
        "HistGradientBoosting",
        "histogram-based gradient-boosted trees",
        "ensemble.HistGradientBoostingClassifier",
        _count("max_iter", 20, 150),
        _count("max_leaf_nodes", 7, 63, 2),
        _RATE,
        fixed={"early_stopping": False},  # else it holds images back by chance, where there are many
        seeded=True,
        cost=200,
    ),
    _sklearn(
        "KNeighbors",
        "k-nearest neighbours",
        "neighbors.KNeighborsClassifier",
        _count("n_neighbors", 3, 24, simpler="larger", at_most=("images",)),
        _choice("weights", "uniform", "distance", default=("uniform",)),
        weighted=False,
        spots={f"KNeighbors-{k}": {"n_neighbors": k} for k in range(3, 25)},
    ),
    _sklearn(
        "LinearSVC",
        "linear support vector machine",
        "svm.LinearSVC",
        _range("C", 1e-4, 10, _POSITIVE, simpler="smaller", log=True),
        gives="decision",
        seeded=True,
        cost=8,
        spots={f"LinearSVC-{C}": {"C": float(C)} for C in _STRENGTHS},
    ),
    _sklearn(
        "Ridge",
        "ridge classifier",
        "linear_model.RidgeClassifier",
        _range("alpha", 1e-3, 1e4, 0, simpler="larger", log=True),
        gives="decision",
        seeded=True,
        spots={f"Ridge-{alpha}": {"alpha": float(alpha)} for alpha in _STRENGTHS},
    ),
)

CLASSIFIERS: Mapping[str, Classifier] = {row.name: row for row in (*_MLLIB, *_SKLEARN)}
"""Every classifier by its name."""

SPOTS: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    spot: (row.name, values) for row in CLASSIFIERS.values() for spot, values in row.spots.items()
}
"""What a spot-check may try, by name: a classifier, and some of its values."""


def find_classifier(name: str) -> Classifier:
    """A row of the table; raises ValueError, with the nearest names, where there is none."""
    if name not in CLASSIFIERS:
        raise ValueError(f"there is no classifier {name}: {nearest(name, [*CLASSIFIERS, *SPOTS])}")
    return CLASSIFIERS[name]
