"""A network that was trained: tested once, logged as Keras has it and as a backbone, and registered."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import Model
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Schema, TensorSpec

from tuner.base.choices import Metric
from tuner.classifiers.heads.files import Head
from tuner.classifiers.parameters import TrialParams
from tuner.evaluation.metrics import Evaluation, evaluate
from tuner.evaluation.predictions import Scored
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment
from tuner.images.preprocessing import preprocess
from tuner.images.splits import TEST, TRAIN, VALIDATION
from tuner.models.fitted.estimators import classifier_params
from tuner.models.flavor import FittedModel, log_model, write_model_files
from tuner.networks.resolution import Network, load_network, resolve_network
from tuner.networks.store import TUNED_FOLDER, Tuned, is_tuned
from tuner.preparation.images import PreparedImages, first_image
from tuner.registry.versions import RegisteredVersion
from tuner.reports import charts
from tuner.reports.evaluation import log_evaluation
from tuner.reports.markdown import markdown_text
from tuner.reports.model_card import ModelFacts
from tuner.reports.pages import figure_html
from tuner.searches.opening import Opened
from tuner.searches.winner import register_winner
from tuner.searches.winners_onnx import FeaturesOf, winners_onnx
from tuner.tracking import names
from tuner.tracking.run_log import RunLog
from tuner.training.bases import Base
from tuner.training.building import Built
from tuner.training.checkpoints import Epoch
from tuner.training.loop import Training

_AT_ONCE = 32  # images that go through the network together


@dataclass(frozen=True)
class TunedWinner:
    """What became of a training: its best epoch, all of them, its test, and its version."""

    best: Epoch
    epochs: pd.DataFrame
    test: Evaluation
    version: RegisteredVersion


def finish_tuned(
    found: Opened,
    spec: NetworkSpec,
    base: Base,
    prepared: PreparedImages,
    training: Training,
    pixels: Path,
) -> TunedWinner:
    """Log the network of the best epoch, test it once, and register it as a search's winner is.

    Its last layer is what MLlib's logistic regression computes of the features before it; so the model is
    that network with that classifier, and both faces are a search's.
    """
    experiment, run = found.experiment, found.run
    metric = experiment.search.metric
    best = training.progress.best(metric)
    epochs = _log_epochs(run, training, best, metric)
    built = training.best()
    network = _log_network(found, spec, base, prepared, built)
    features = partial(_features, network, prepared, pixels, found.session.cores)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model"
        write_model_files(files, first_image(prepared))
        with winners_onnx(
            found.cache.networks, prepared, network, features, files=files, run=run, console=found.console
        ) as as_onnx:
            run.model(names.KERAS_MODEL, lambda path, described: _save_keras(built, base, path, described))
            head = built.head()
            scored = _test(prepared, features, head)
            onnx = as_onnx(head)
        params = classifier_params(TrialParams(network.name, ()))
        model = FittedModel(network, head, params, prepared.labels, onnx=onnx)
        logged = log_model(run, model, name=names.MODEL, files=files)
    test = evaluate(scored.label_index, scored.scores, prepared.labels)
    _log_test(run, training, best, test, scored, logged.model_id)
    facts = _facts(experiment, base, prepared, training, best, test)
    tags = {
        "backbone": network.name,
        names.TRIAL_RUN: run.run_id,
        f"validation_{metric}": f"{facts.validation[1]:.4f}",
    }
    registered = register_winner(found.session, found.store, run, experiment, prepared, logged, facts, tags)
    return TunedWinner(best, epochs, test, registered)


def _log_epochs(run: RunLog, training: Training, best: Epoch, metric: Metric) -> pd.DataFrame:
    epochs = pd.DataFrame(
        [
            {"number": epoch.number, "phase": epoch.phase, "seconds": epoch.seconds, **epoch.metrics}
            for epoch in training.progress.history
        ]
    )
    run.text(figure_html(charts.learning_curves(epochs, metric, best.number)), names.LEARNING_CURVES)
    return epochs


def _log_test(
    run: RunLog, training: Training, best: Epoch, test: Evaluation, scored: Scored, model_id: str
) -> None:
    log_evaluation(
        run,
        test,
        scored,
        plotly_run=run.run_id,
        params={f"best_{name}": value for name, value in training.plan.values.items()},
        metrics={"best_epoch": best.number, **{f"test_{k}": value for k, value in test.metrics.items()}},
        model_id=model_id,
    )
    roc = charts.roc_figure(scored.label_index, scored.scores, test.labels)
    run.text(figure_html(charts.confusion_figure(test), roc), names.TEST_CHARTS_FILE)


def _facts(
    experiment: Experiment,
    base: Base,
    prepared: PreparedImages,
    training: Training,
    best: Epoch,
    test: Evaluation,
) -> ModelFacts:
    metric = experiment.search.metric
    return ModelFacts(
        name=experiment.model_name,
        version="",
        alias=experiment.registry.alias,
        images=experiment.images,
        data_digest=prepared.digest,
        split=prepared.index,
        network=base.name,
        own_network=base.own,
        kind=f"{markdown_text(base.name)}, trained on these images with a head of its own",
        gives="probability",
        chosen=_chosen(training, best),
        validation=(metric, best.validation[metric]),
        test=test,
    )


def _chosen(training: Training, best: Epoch) -> str:
    values = ", ".join(f"{name} {value}" for name, value in training.plan.values.items())
    return f"{values}; epoch {best.number} of {len(training.progress.history)}"


def _log_network(
    found: Opened, given: NetworkSpec, base: Base, prepared: PreparedImages, built: Built
) -> Network:
    """Log the network up to its features as a backbone for searches, and store it as they do."""
    experiment = found.experiment
    parts = prepared.index["part"].replace("fold-0", VALIDATION)
    parts = parts.where(parts.isin([TEST, VALIDATION]), TRAIN)
    split = prepared.index[["digest"]].assign(part=parts).drop_duplicates("digest")
    if is_tuned(given.file):  # what its base has learned from, it has, too
        earlier, _ = found.cache.networks.tuned(given.name, str(given.file))
        split = pd.concat([split, earlier.split]).drop_duplicates("digest")
    tuned = Tuned(base.input_size, base.preprocessing, found.run.run_id, prepared.digest, split)
    with found.run.folder() as folder:
        (folder / TUNED_FOLDER).mkdir()
        graph = base.is_saved_model
        file = tuned.write(
            folder / TUNED_FOLDER,
            lambda target: _export(built.features, target) if graph else built.features.save(target),
            graph=graph,
        )
        spec = NetworkSpec(
            name=f"{base.name}-tuned",
            file=file,
            input_size=base.input_size,
            preprocessing=base.preprocessing,
        )
        return resolve_network(spec, experiment.precision, found.cache.networks, experiment.decoding)


def _export(model: Any, target: Path) -> None:
    """Write a SavedModel: a Keras file with a layer of one names a path, and is refused in safe mode."""
    model.export(target, format="tf_saved_model", verbose=False)


def _save_keras(built: Built, base: Base, path: str, described: Model) -> None:
    """Write all of the network, with its classes, as MLflow's flavor of Keras has it."""
    import mlflow

    mlflow.keras.save_model(
        built.whole,
        path,
        save_exported_model=base.is_saved_model,
        mlflow_model=described,
        signature=ModelSignature(
            inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *base.input_size, 3))]),
            outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, built.whole.output_shape[-1]))]),
        ),
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "keras", "tensorflow")],
    )


def _test(prepared: PreparedImages, features: FeaturesOf, head: Head) -> Scored:
    """Score the test part by the very network that is registered; its pixels are read here alone."""
    rows = prepared.rows(TEST).sort_values("path")
    scores = head.score(features(list(rows["digest"])))
    return Scored(list(rows["path"]), rows["label_index"].to_numpy(), scores)


def _features(
    network: Network, prepared: PreparedImages, file: Path, threads: int, digests: Sequence[str]
) -> np.ndarray:
    """The features of images, by their digests, of the pixels that were decoded for the training."""
    row_of = dict(zip(prepared.index["digest"], prepared.index["row"].to_numpy(np.int64), strict=True))
    places = np.array([row_of[digest] for digest in digests], np.int64)
    pixels = np.load(file, mmap_mode="r")
    compute = load_network(network, Path(network.file), threads)
    return np.concatenate(
        [
            compute(preprocess(pixels[places[first : first + _AT_ONCE]], network.preprocessing))
            for first in range(0, len(places), _AT_ONCE)
        ]
    )
