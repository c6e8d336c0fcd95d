"""The epochs of a training: two phases, what each epoch is worth, and where an earlier process stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tuner.base.errors import ExperimentError, TrialError
from tuner.evaluation.metrics import evaluate
from tuner.experiment.training.fine_tuning import NONE, TrainingPrecision
from tuner.networks.files import import_keras, limit_threads, sees_gpu
from tuner.training.bases import Base, unfreeze
from tuner.training.building import Built, build
from tuner.training.checkpoints import Checkpoints, Epoch, Progress
from tuner.training.images import Part, TrainingImages
from tuner.training.plan import Phase, Plan

_AT_ONCE = 32  # images that are scored at once
_MOST = 2**30  # bytes of what a frozen base gives: more is computed anew in each epoch


class _Way(NamedTuple):
    """What the epochs of a phase go through: the model that is fitted, and what it is given."""

    model: Any
    score: Callable[[Part], np.ndarray]
    learned: Part
    held: Part


class Training:
    """A training that goes on where the folder of its checkpoints says it stopped.

    Parameters
    ----------
    base, plan
        What to begin with, and how to go on.
    images
        The images, decoded.
    labels
        The class names.
    folder
        For checkpoints.
    threads
        For TensorFlow, if this process has not computed with it yet.
    on_epoch
        Is told of each epoch as it ends.
    on_note
        Is told, in a sentence or a phrase, what happens on the way.

    Raises
    ------
    ExperimentError, NetworkError
        The precision, the base or the layers to unfreeze cannot work.
    CacheError
        There is a checkpoint that cannot be read.
    """

    def __init__(
        self,
        base: Base,
        plan: Plan,
        images: TrainingImages,
        labels: Sequence[str],
        folder: Path,
        *,
        threads: int,
        on_epoch: Callable[[Epoch], None] = lambda _: None,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        import_keras()
        limit_threads(threads)
        check_gpu(plan.precision)
        self.plan = plan
        self._base, self._labels = base, tuple(labels)
        self._on_epoch, self._on_note = on_epoch, on_note
        self._learned, self._held = (
            images.part(base.preprocessing, validates=validates) for validates in (False, True)
        )
        self._checkpoints = Checkpoints(folder)
        digest = hashlib.sha256(_described(base, plan, labels).encode()).hexdigest()
        self.progress = self._checkpoints.progress(digest) or Progress(digest)

    @cached_property
    def _built(self) -> Built:
        steps = math.ceil(len(self._learned) / self.plan.batch_size)
        return build(self._base, self.plan, len(self._labels), steps=steps)

    @cached_property
    def _whole_way(self) -> _Way:
        return _Way(self._built.model, _over(self._built.whole), self._learned, self._held)

    @cached_property
    def _short_way(self) -> _Way | None:
        """Through the head alone, where the base gives the same in each epoch; None: that is too much."""
        built = self._built
        each = 4 * math.prod(built.before.output_shape[1:])
        if self.plan.augment.changes or each * (len(self._learned) + len(self._held)) > _MOST:
            return None
        before = _over(built.before)
        learned, held = (part.computed(before(part)) for part in (self._learned, self._held))
        return _Way(built.after, _over(built.after), learned, held)

    def run(self, until: int | None = None) -> Progress:
        """Train to the end, or until after the epoch of this number; gives how far it has come then.

        Raises
        ------
        TrialError
            The loss is no number any more; it says at which epoch.
        """
        last = min(until or self.plan.epochs, self.plan.epochs)
        compiled: Phase | None = None
        way = self._whole_way
        while self.progress.begins <= last:
            number = self.progress.begins
            phase = self.plan.phase_of(number)
            if phase is not compiled:
                way = self._begin(phase, restore=compiled is None and bool(self.progress.history))
                compiled = phase
            epoch = self._epoch(number, phase, way)
            self.progress = self._after(epoch, phase)
            self._on_epoch(epoch)  # rather twice than never, should this process be ended now
            self._keep(epoch, way)
        return self.progress

    def _begin(self, phase: Phase, *, restore: bool) -> _Way:
        """Let the phase's layers learn; `restore` what the last epoch of an earlier process left."""
        keras = import_keras()
        which = unfreeze(self._built.base, self._base, phase.unfreeze)
        short = self._short_way if phase.unfreeze == NONE else None
        way = short or self._whole_way
        optimizer = {"rmsprop": "RMSprop", "sgd": "SGD", "adam": "Adam"}[phase.optimizer]
        made = getattr(keras.optimizers, optimizer)(phase.learning_rate)
        if self.plan.precision == "float16":  # small gradients would be 0
            made = keras.optimizers.LossScaleOptimizer(made)
        way.model.compile(optimizer=made, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        made.build(way.model.trainable_variables)
        if restore:
            kept = self._checkpoints.last()
            # An epoch of the phase before left its weights alone: the optimizer begins anew.
            same = self.progress.history[-1].phase == phase.name
            _set(_kept(self._built), kept, "weight")
            if same:
                _set(made.variables, kept, "optimizer")
        self._on_note(
            f"{phase.name}: epochs {phase.first} to {phase.last}, {optimizer} {phase.learning_rate:g}; of "
            f"the base {self._base.name} learn {which}"
            + (", and what it gives is computed once" if short else "")
        )
        return way

    def _epoch(self, number: int, phase: Phase, way: _Way) -> Epoch:
        started = time.monotonic()
        # By the epoch's number: one that is begun again sees its images in the same order.
        order = np.random.default_rng((self.plan.seed, number)).permutation(len(way.learned))
        found = way.model.fit(
            way.learned.batches(self.plan.batch_size, order),
            epochs=number,
            initial_epoch=number - 1,
            class_weight=self._class_weights(),
            callbacks=[_stops_at_nan(number, phase)],
            shuffle=False,  # it is done
            verbose=0,
        )
        scores = way.score(way.held)
        if not np.isfinite(scores).all():
            raise TrialError(_not_a_number(number, phase))
        evaluation = evaluate(way.held.label_index, scores.astype(np.float64), self._labels)
        if not math.isfinite(evaluation.metrics.get(self.plan.metric, math.nan)):
            raise TrialError(
                f"The metric {self.plan.metric} is not defined on the validation data: rank by another "
                "one, or hold back more images."
            )
        metrics = {"loss": found.history["loss"][-1], "train_accuracy": found.history["accuracy"][-1]}
        metrics |= {f"validation_{name}": value for name, value in evaluation.metrics.items()}
        numbers = {name: float(value) for name, value in metrics.items()}
        return Epoch(number, phase.name, time.monotonic() - started, numbers)

    def _class_weights(self) -> dict[int, float] | None:
        if self.plan.class_weight == "none":
            return None
        counts = np.bincount(self._learned.label_index, minlength=len(self._labels))
        present = np.count_nonzero(counts)
        return {
            place: len(self._learned) / (present * count) for place, count in enumerate(counts) if count
        }

    def _after(self, epoch: Epoch, phase: Phase) -> Progress:
        """Add an epoch; if its phase has brought no gain for long, the next one comes at once."""
        history = (*self.progress.history, epoch)
        begins, notes, patience = epoch.number + 1, tuple(self.progress.notes), self.plan.early_stop
        of_phase = [past for past in history if past.phase == phase.name]
        best = min(of_phase, key=lambda past: (past.rank(self.plan.metric), past.number))
        if patience is not None and epoch.number - best.number >= patience and epoch.number < phase.last:
            begins = phase.last + 1
            note = (
                f"{phase.name} ended after epoch {epoch.number}: {patience} epochs brought no gain on the "
                f"validation part since epoch {best.number} (fine_tune.early_stop)"
            )
            notes = (*notes, note)
            self._on_note(note)
        return replace(self.progress, begins=begins, history=history, notes=notes)

    def _keep(self, epoch: Epoch, way: _Way) -> None:
        weights = _named(_kept(self._built), "weight")
        if self.progress.best(self.plan.metric) == epoch:
            self._checkpoints.keep_best(weights)
        optimizer = _named(way.model.optimizer.variables, "optimizer")
        self._checkpoints.keep(self.progress, {**weights, **optimizer})

    def best(self) -> Built:
        """The network of the best epoch, built anew to compute in float32."""
        built = build(self._base, self.plan, len(self._labels), precision="float32")
        unfreeze(built.base, self._base, "all")
        _set(_kept(built), self._checkpoints.best(), "weight")
        return built


def check_gpu(precision: TrainingPrecision) -> None:
    """Refuse float16 where there is no GPU, which alone computes in it; raises `ExperimentError`."""
    if precision == "float16" and not sees_gpu():
        raise ExperimentError(
            "fine_tune.precision is float16, and TensorFlow sees no GPU here: set it to float32, or to "
            "bfloat16 where the processor computes in it."
        )


def _over(model: Any) -> Callable[[Part], np.ndarray]:
    """Give what computes a model's output of a part's images: float32 of shape (n, …)."""
    import tensorflow as tf

    given = tf.TensorSpec(model.input_shape, tf.float32)
    # Keras's predict would trace anew whenever a model is compiled.
    compute = tf.function(lambda batch: model(batch, training=False), input_signature=[given])

    def over(part: Part) -> np.ndarray:
        return np.concatenate(
            [np.asarray(compute(batch), np.float32) for batch, _ in part.batches(_AT_ONCE)]
        )

    return over


def _described(base: Base, plan: Plan, labels: Sequence[str]) -> str:
    """Text for what decides a training but for its images."""
    described = dataclasses.asdict(plan)
    described["augment"] = plan.augment.model_dump()
    name = base.file.name if base.file else base.name
    return json.dumps([name, base.input_size, base.preprocessing, base.pooling, described, list(labels)])


def _kept(built: Built) -> list[Any]:
    """All that changes in a model but its metrics: weights, and where its random generators are."""
    metrics = {id(variable) for variable in built.model.metrics_variables}
    return [variable for variable in built.model.variables if id(variable) not in metrics]


def _named(variables: Sequence[Any], name: str) -> dict[str, np.ndarray]:
    return {f"{name}_{place}": np.asarray(variable) for place, variable in enumerate(variables)}


def _set(variables: Sequence[Any], arrays: dict[str, np.ndarray], name: str) -> None:
    for place, variable in enumerate(variables):
        variable.assign(arrays[f"{name}_{place}"])


def _not_a_number(number: int, phase: Phase) -> str:
    return (
        f"The loss is no number any more at epoch {number} ({phase.name}): lower {phase.rate_key}, which "
        f"is {phase.learning_rate:g}."
    )


def _stops_at_nan(number: int, phase: Phase) -> Any:
    class StopsAtNan(import_keras().callbacks.Callback):  # type: ignore[misc]
        """Ends a training whose loss is no number any more: nothing would come of it."""

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            if not math.isfinite((logs or {}).get("loss", 0.0)):
                raise TrialError(_not_a_number(number, phase))

    return StopsAtNan()
