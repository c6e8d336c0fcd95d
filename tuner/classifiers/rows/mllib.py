"""MLlib's classifiers."""

from __future__ import annotations

from tuner.classifiers.rows.row import Classifier, chosen, counted, ranged

MODEL_TYPE = "modelType"
NOT_NEGATIVE = ("multinomial", "complement")  # values of `modelType` that take no negative features

_REG = ranged("regParam", 1e-4, 1.0, simpler="larger", log=True)

MLLIB = (
    Classifier(
        "LogisticRegression",
        "MLlib's logistic regression",
        "mllib",
        "classification.LogisticRegression",
        (_REG, ranged("elasticNetParam", 0.0, 1.0, 0, 1, simpler="larger"), counted("maxIter", 5, 30, 0)),
        fits=("worker", "spark"),
        spots={"LogisticRegression": {"regParam": 0.01, "elasticNetParam": 0.0, "maxIter": 30}},
    ),
    Classifier(
        "LinearSVC",
        "MLlib's linear support vector machine, one class against the rest",
        "mllib",
        "classification.LinearSVC",
        (_REG, counted("maxIter", 5, 50, 0)),
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
            counted("maxDepth", 2, 12, 0, 30),
            counted("minInstancesPerNode", 1, 8, simpler="larger"),
            chosen("impurity", "gini", "entropy"),
        ),
        seeded=True,
        cost=15,
        spots={"DecisionTree": {"maxDepth": 5, "minInstancesPerNode": 1, "impurity": "gini"}},
    ),
    Classifier(
        "RandomForest",
        "MLlib's random forest",
        "mllib",
        "classification.RandomForestClassifier",
        (counted("numTrees", 20, 200), counted("maxDepth", 3, 12, 0, 30)),
        seeded=True,
        cost=20,
        spots={"RandomForest-100": {"numTrees": 100, "maxDepth": 5}},
    ),
    Classifier(
        "GBT",
        "MLlib's gradient-boosted trees, one class against the rest",
        "mllib",
        "classification.GBTClassifier",
        (
            counted("maxIter", 5, 30, 1),
            counted("maxDepth", 2, 5, 0, 30),
            ranged("stepSize", 0.05, 0.5, 1e-9, 1, log=True),
        ),
        gives="decision",
        one_vs_rest=True,
        seeded=True,
        cost=200,
        spots={"GBT": {"maxIter": 20, "maxDepth": 5, "stepSize": 0.1}},
    ),
    Classifier(
        "NaiveBayes",
        "MLlib's naive Bayes",
        "mllib",
        "classification.NaiveBayes",
        (
            # MLlib's own default is multinomial, which takes no negative features.
            chosen(MODEL_TYPE, "gaussian", *NOT_NEGATIVE, default=("gaussian",)),
            ranged("smoothing", 1e-3, 10, log=True, simpler="larger", only_with=(MODEL_TYPE, NOT_NEGATIVE)),
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
        (counted("hiddenSize", 8, 128, log=True), counted("maxIter", 20, 150)),
        weighted=False,
        seeded=True,
        cost=20,
        spots={"MultilayerPerceptron": {"hiddenSize": 64, "maxIter": 100}},
    ),
    Classifier(
        "FM",
        "MLlib's factorization machine, one class against the rest",
        "mllib",
        "classification.FMClassifier",
        (
            ranged("regParam", 1e-6, 1e-1, simpler="larger", log=True),
            counted("factorSize", 2, 16, 0),
            counted("maxIter", 20, 100, 0),
            ranged("stepSize", 1e-3, 1, 1e-9, log=True),
        ),
        gives="decision",
        one_vs_rest=True,
        weighted=False,
        seeded=True,
        cost=100,
        spots={"FM": {"factorSize": 8, "maxIter": 100, "stepSize": 1.0}},
    ),
)
