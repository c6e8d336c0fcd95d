"""The searches that tuner's is compared with, from images to a registered model; each in a process."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from sklearn.model_selection import StratifiedKFold, train_test_split
from trial_ways import CORES, METRICS, fit_sklearn, mllib_metrics, requirements, suggested

from tuner.evaluation.metrics import Evaluation, evaluate, summarize_folds
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.table import NETWORKS

Given = Mapping[str, Any]
Pairs = list[tuple[np.ndarray, np.ndarray]]
TEST, VALIDATION, SEED = 1 / 5, 1 / 4, 42
TRIAL = {"tuner.kind": "trial"}
FORMATS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")  # what Keras lists


def listed(folder: str) -> tuple[list[Path], np.ndarray, list[str]]:
    """The files of class folders in Keras's order, their class indices and the class names."""
    names = sorted(place.name for place in Path(folder).iterdir() if place.is_dir())
    found = [sorted(Path(folder, name).rglob("*")) for name in names]
    files = [[file for file in some if file.suffix.lower() in FORMATS] for some in found]
    labels = np.repeat(np.arange(len(names)), [len(some) for some in files])
    return [file for some in files for file in some], labels, names


def split(labels: np.ndarray, folds: int) -> tuple[np.ndarray, np.ndarray, Pairs]:
    """Positions: of all but the test part, of the test part, and the pairs to fit on and to score."""
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=TEST, stratify=labels, random_state=SEED
    )
    if not folds:
        held = train_test_split(rest, test_size=VALIDATION, stratify=labels[rest], random_state=SEED)
        return rest, test, [(held[0], held[1])]
    dealt = StratifiedKFold(folds, shuffle=True, random_state=SEED).split(rest, labels[rest])
    return rest, test, [(rest[fit], rest[score]) for fit, score in dealt]


def described(spec: Given) -> tuple[tuple[int, int], str]:
    """A network's input size and preprocessing."""
    row = NETWORKS.get(spec["name"])
    if row is not None:
        return row.input_size, row.preprocessing
    return (spec["input_size"], spec["input_size"]), spec["preprocessing"]


# The script: Keras, Optuna, scikit-learn -----------------------------------------------------------


def keras_features(spec: Given, folder: str) -> np.ndarray:
    """Features of all images of a folder, in memory."""
    import keras
    import tensorflow as tf

    size, mode = described(spec)
    if spec.get("weights") == "random":
        keras.utils.set_random_seed(spec["seed"])
        build = getattr(keras.applications, spec["name"])
        model = build(include_top=False, pooling="avg", weights=None, input_shape=(*size, 3))
    else:
        model = keras.saving.load_model(spec.get("file") or NETWORK_FILES[spec["name"]], compile=False)

    def prepare(pixels: Any) -> Any:
        if mode in ("unit", "none"):
            return pixels / 255 if mode == "unit" else pixels
        return keras.applications.imagenet_utils.preprocess_input(pixels, mode=mode)

    images = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=size, batch_size=32, shuffle=False, verbose=False
    )
    dataset = images.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    features = np.asarray(model.predict(dataset, verbose=0))
    return features.mean(axis=(1, 2)) if features.ndim == 4 else features


def log_evaluation(found: Evaluation) -> None:
    mlflow.log_metrics(found.metrics)
    mlflow.log_dict({"labels": found.labels, "matrix": found.confusion.tolist()}, "confusion_matrix.json")


def script_way(given: Given) -> dict[str, Any]:
    """Features once in memory, Optuna with two threads, the winner fitted again, tested and registered."""
    import optuna

    _, labels, names = listed(given["images"])
    features = {spec["name"]: keras_features(spec, given["images"]) for spec in given["networks"]}
    assert {len(some) for some in features.values()} == {len(labels)}
    rest, test, pairs = split(labels, given["folds"])
    needed = requirements("scikit-learn", "mlflow", "numpy")

    def objective(trial: Any) -> float:
        backbone = trial.suggest_categorical("backbone", list(features))
        point, mine = {**suggested(trial, given["space"]), "backbone": backbone}, features[backbone]
        with mlflow.start_run(run_name=f"trial-{trial.number}", tags=TRIAL):
            mlflow.log_params(point)
            models = [fit_sklearn(mine[fit], labels[fit], point) for fit, _ in pairs]
            answers = [
                model.predict_proba(mine[score]) for model, (_, score) in zip(models, pairs, strict=True)
            ]
            found = [
                evaluate(labels[score], answer, names)
                for answer, (_, score) in zip(answers, pairs, strict=True)
            ]
            model, whole = models[0], found[0]
            if given["folds"]:
                scored = np.concatenate([score for _, score in pairs])
                whole = summarize_folds(found, labels[scored], np.concatenate(answers))
                model = fit_sklearn(mine[rest], labels[rest], point)
            log_evaluation(whole)
            mlflow.sklearn.log_model(model, name="model", pip_requirements=needed)
            return whole.metrics["accuracy"]

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=SEED))
    for point in given["points"]:
        study.enqueue_trial(point)
    study.optimize(objective, n_trials=given["trials"], n_jobs=CORES)
    best = study.best_params
    mine = features[best["backbone"]]
    with mlflow.start_run(run_name="winner"):
        model = fit_sklearn(mine[rest], labels[rest], best)
        found = evaluate(labels[test], model.predict_proba(mine[test]), names)
        log_evaluation(found)
        logged = mlflow.sklearn.log_model(model, name="model", pip_requirements=needed)
    mlflow.register_model(logged.model_uri, "bench")
    return {"accuracy": found.metrics["accuracy"], "images": len(labels) * len(features)}


# The seeds' way: the network in every trial's Pipeline -------------------------------------------------


def seeds_way(given: Given) -> dict[str, Any]:
    """Give the seconds of each trial by backbone; `given["trials"]` are few, for each takes long."""
    import hyperopt
    import pandas as pd
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression as SparkLogisticRegression
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import functions as F

    from tuner.models.featurizer import DeepImageFeaturizer

    spark = (
        SparkSession.builder.master(f"local[{CORES}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "6g")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "1000")
        .getOrCreate()
    )
    files, labels, _ = listed(given["images"])
    rest, test, pairs = split(labels, given["folds"])
    binary = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(given["images"])
    contents = binary.select(F.regexp_replace("path", "^file:/+", "/").alias("path"), "content")

    def frame(positions: np.ndarray) -> DataFrame:
        rows = pd.DataFrame(
            {"path": [str(files[at]) for at in positions], "label": labels[positions] * 1.0}
        )
        return contents.join(F.broadcast(spark.createDataFrame(rows)), "path")

    def pipeline(point: Given) -> Pipeline:
        spec = next(spec for spec in given["networks"] if spec["name"] == point["backbone"])
        size, mode = described(spec)
        own = {"modelFile": spec.get("file"), "inputSize": list(size), "preprocessing": mode}
        featurizer = DeepImageFeaturizer(
            inputCol="content",
            outputCol="features",
            modelName=spec["name"],
            weights=spec.get("weights"),
            handleInvalid="keep",
            embedWeights=False,
            **(own if "file" in spec else {}),
        )
        params = {name: point[name] for name in ("regParam", "elasticNetParam", "maxIter")}
        return Pipeline(stages=[featurizer, SparkLogisticRegression(**params)])

    def score(model: Any, table: DataFrame) -> dict[str, float]:
        predictions = model.transform(table).select("label", "prediction", "probability").cache()
        found = mllib_metrics(predictions)
        predictions.unpersist()
        return found

    def mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: float(np.mean([one[name] for one in found])) for name in METRICS}

    def log(model: Any) -> Any:
        return mlflow.spark.log_model(model, "model", pip_requirements=requirements("pyspark", "mlflow"))

    tables = [(frame(fit), frame(held)) for fit, held in pairs]
    whole = frame(rest)
    seconds: dict[str, list[float]] = {}
    scored: list[tuple[float, Given]] = []

    def objective(point: Given) -> dict[str, Any]:
        point, started = {**point, "maxIter": int(point["maxIter"])}, time.perf_counter()
        with mlflow.start_run(tags=TRIAL):
            mlflow.log_params(point)
            models = [pipeline(point).fit(fit) for fit, _ in tables]
            metrics = mean([score(model, held) for model, (_, held) in zip(models, tables, strict=True)])
            mlflow.log_metrics(metrics)
            log(pipeline(point).fit(whole) if given["folds"] else models[0])
        seconds.setdefault(point["backbone"], []).append(time.perf_counter() - started)
        scored.append((metrics["accuracy"], point))
        return {"loss": -metrics["accuracy"], "status": hyperopt.STATUS_OK}

    space, names = given["space"], [spec["name"] for spec in given["networks"]]
    dimensions = {
        "backbone": hyperopt.hp.choice("backbone", names),
        "regParam": hyperopt.hp.loguniform("regParam", *np.log(space["regParam"])),
        "elasticNetParam": hyperopt.hp.uniform("elasticNetParam", *space["elasticNetParam"]),
        "maxIter": hyperopt.hp.quniform("maxIter", *space["maxIter"], 1),
    }
    hyperopt.fmin(
        objective,
        dimensions,
        algo=hyperopt.tpe.suggest,
        max_evals=1,  # hyperopt counts them beside the points
        points_to_evaluate=[{**one, "backbone": names.index(one["backbone"])} for one in given["points"]],
        rstate=np.random.default_rng(SEED),
        show_progressbar=False,
        verbose=False,
    )
    with mlflow.start_run(run_name="winner"):
        _, best = max(scored, key=lambda pair: pair[0])
        model = pipeline(best).fit(whole)
        metrics = score(model, frame(test))
        mlflow.log_metrics(metrics)
        logged = log(model)
    mlflow.register_model(logged.model_uri, "bench")
    return {"accuracy": metrics["accuracy"], "trial_seconds": seconds}


WAYS: dict[str, Callable[[Given], dict[str, Any]]] = {"script": script_way, "seeds": seeds_way}


def main() -> None:
    given = json.loads(sys.argv[1])
    mlflow.set_tracking_uri(f"sqlite:///{Path('mlflow.db').absolute()}?timeout=60")
    figures = WAYS[given["way"]](given)
    print()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
