"""The ways to run trials that tuner is compared with, each in a process of its own."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tuner.evaluation.metrics import evaluate

Point = Mapping[str, Any]
CORES = 2
METRICS = ("accuracy", "f1", "weightedPrecision", "weightedRecall", "logLoss", "hammingLoss")


class Data:
    """Features (float32) and class indices of the two parts, with the class names."""

    def __init__(self, file: str) -> None:
        stored = np.load(file)
        self.train, self.validation = stored["train"], stored["validation"]
        self.train_label, self.validation_label = stored["train_label"], stored["validation_label"]
        self.labels = [str(label) for label in stored["labels"]]


def log_scores(data: Data, probability: np.ndarray) -> float:
    """Log six metrics and the confusion matrix to the active run."""
    found = evaluate(data.validation_label, probability, data.labels)
    mlflow.log_metrics(found.metrics)
    mlflow.log_dict({"labels": data.labels, "matrix": found.confusion.tolist()}, "confusion_matrix.json")
    return found.metrics["accuracy"]


def requirements(*names: str) -> list[str]:
    return [f"{name}=={version(name)}" for name in names]


def fit_sklearn(features: np.ndarray, label: np.ndarray, point: Point) -> Any:
    """Fit scikit-learn's counterpart of MLlib's classifier: the same penalty, standardised features."""
    classifier = LogisticRegression(
        solver="saga",
        C=1 / (len(features) * point["regParam"]),
        l1_ratio=point["elasticNetParam"],
        max_iter=point["maxIter"],
    )
    return make_pipeline(StandardScaler(), classifier).fit(features, label)


def sklearn_trial(data: Data, point: Point, stated: bool) -> float:
    """Fit, score and log within the active run."""
    model = fit_sklearn(data.train, data.train_label, point)
    accuracy = log_scores(data, model.predict_proba(data.validation))
    needed = requirements("scikit-learn", "mlflow", "numpy") if stated else None
    mlflow.sklearn.log_model(model, name="model", pip_requirements=needed)
    return accuracy


def suggested(trial: Any, space: Mapping[str, Any]) -> Point:
    low, high = space["regParam"]
    return {
        "regParam": trial.suggest_float("regParam", low, high, log=True),
        "elasticNetParam": trial.suggest_float("elasticNetParam", *space["elasticNetParam"]),
        "maxIter": trial.suggest_int("maxIter", *space["maxIter"]),
    }


def optuna_way(given: Mapping[str, Any], data: Data, stated: bool = True) -> Callable[[], None]:
    """Optuna with two threads, and scikit-learn."""
    import optuna

    def objective(trial: Any) -> float:
        point = suggested(trial, given["space"])
        with mlflow.start_run(run_name=f"trial-{trial.number}"):
            mlflow.log_params(dict(point))
            return sklearn_trial(data, point, stated)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=42))
    for point in given["points"]:
        study.enqueue_trial(point)
    return lambda: study.optimize(objective, n_trials=given["trials"], n_jobs=CORES)


def spark_study_way(given: Mapping[str, Any], _: Data) -> Callable[[], None]:
    """MLflow's own Optuna study on Spark, with the same scikit-learn objective."""
    import optuna
    from mlflow.optuna.storage import MlflowStorage
    from mlflow.pyspark.optuna.study import MlflowSparkStudy
    from pyspark.sql import SparkSession

    experiment, uri, space = (
        mlflow.get_experiment_by_name("Default"),
        mlflow.get_tracking_uri(),
        given["space"],
    )
    assert experiment is not None
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    storage = MlflowStorage(experiment_id=experiment.experiment_id)
    SparkSession.builder.master(f"local[{CORES}]").config("spark.ui.enabled", "false").getOrCreate()
    study = MlflowSparkStudy(
        "study", storage, sampler=optuna.samplers.TPESampler(seed=42), direction="maximize"
    )
    for point in given["points"]:
        study.enqueue_trial(point)
    file = given["data"]

    def objective(trial: Any) -> float:
        from trial_ways import Data, sklearn_trial, suggested

        mlflow.set_tracking_uri(uri)
        point = suggested(trial, space)
        with mlflow.start_run(run_id=trial._trial_id):  # the study made it, and has logged the parameters
            return sklearn_trial(Data(file), point, stated=True)

    return lambda: study.optimize(objective, n_trials=given["trials"], n_jobs=CORES)


def mllib_metrics(predictions: Any) -> dict[str, float]:
    """Each of `METRICS` by MLlib's own evaluator, of a table of its predictions."""
    from pyspark.ml.evaluation import MulticlassClassificationEvaluator

    evaluator: Any = MulticlassClassificationEvaluator  # whose type knows literal names alone
    return {name: evaluator(metricName=name).evaluate(predictions) for name in METRICS}


def textbook_way(given: Mapping[str, Any], data: Data) -> Callable[[], None]:
    """Hyperopt's Trials, one after the other, MLlib on the driver, `mlflow.spark.log_model`."""
    import hyperopt
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression as SparkLogisticRegression
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    spark = (
        SparkSession.builder.master(f"local[{CORES}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "6g")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )

    def frame(features: np.ndarray, label: np.ndarray) -> Any:
        import pyarrow as pa

        rows = pa.table({"features": list(features.astype(np.float64)), "label": label.astype(np.float64)})
        table = spark.createDataFrame(rows)
        return table.select(array_to_vector(F.col("features")).alias("features"), "label").cache()

    train, validation = frame(data.train, data.train_label), frame(data.validation, data.validation_label)
    train.count(), validation.count()

    def objective(point: Point) -> dict[str, Any]:
        point = {**point, "maxIter": int(point["maxIter"])}
        with mlflow.start_run():
            model = Pipeline(stages=[SparkLogisticRegression(**point)]).fit(train)
            predictions = model.transform(validation)
            mlflow.log_params(point)
            metrics = mllib_metrics(predictions)
            mlflow.log_metrics(metrics)
            counts: Any = predictions.groupBy("label", "prediction").count().toPandas()
            mlflow.log_dict(counts.to_dict(orient="list"), "confusion_matrix.json")
            mlflow.spark.log_model(model, "model", pip_requirements=requirements("pyspark", "mlflow"))
        return {"loss": -metrics["accuracy"], "status": hyperopt.STATUS_OK}

    space = given["space"]
    dimensions = {
        "regParam": hyperopt.hp.loguniform("regParam", *np.log(space["regParam"])),
        "elasticNetParam": hyperopt.hp.uniform("elasticNetParam", *space["elasticNetParam"]),
        "maxIter": hyperopt.hp.quniform("maxIter", *space["maxIter"], 1),
    }
    return lambda: hyperopt.fmin(
        objective,
        dimensions,
        algo=hyperopt.tpe.suggest,
        points_to_evaluate=given["points"][: given["trials"] - 1],
        max_evals=1,  # hyperopt counts them beside the points
        rstate=np.random.default_rng(42),
        show_progressbar=False,
        verbose=False,
    )


WAYS: dict[str, Callable[[Mapping[str, Any], Data], Callable[[], None]]] = {
    "textbook": textbook_way,
    "optuna": optuna_way,
    "optuna, requirements inferred": lambda given, data: optuna_way(given, data, stated=False),
    "MlflowSparkStudy": spark_study_way,
}


def main() -> None:
    given = json.loads(sys.argv[1])
    mlflow.set_tracking_uri(f"sqlite:///{Path('mlflow.db').absolute()}?timeout=60")
    data = Data(given["data"])
    mlflow.search_runs()  # the store's tables are made before the clock starts
    run_all = WAYS[given["way"]](given, data)
    started = time.perf_counter()
    run_all()
    seconds = time.perf_counter() - started
    runs = mlflow.search_runs()
    finished = runs[(runs["status"] == "FINISHED") & runs["metrics.accuracy"].notna()]
    print()
    print(
        json.dumps(
            {"seconds": seconds, "trials": len(finished), "accuracy": finished["metrics.accuracy"].max()}
        )
    )


if __name__ == "__main__":
    main()
