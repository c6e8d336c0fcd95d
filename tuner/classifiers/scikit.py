"""scikit-learn's classifiers: made of a row of the table, fitted in this process, kept by skops."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from tuner.base.choices import ScoreKind
from tuner.base.errors import ModelError, TrialError
from tuner.base.wording import first_line
from tuner.classifiers.parameters import TrialParams
from tuner.classifiers.rows.row import NONE, NORMALIZER, PCA, PRESTEP, STANDARD_SCALER, Classifier

# Beside what skops itself takes: scikit-learn's own classes, of trees, neighbours and an optimizer. They
# hold numbers, and nothing of them is run when they are read.
TRUSTED: frozenset[str] = frozenset(
    {
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    }
)
LEAST_SCORE = float(-np.finfo(np.float64).max)  # the decision value of a class that was not there to fit on
_STEP = "classifier"  # of the pipeline


@dataclass(frozen=True, eq=False)
class SklearnHead:
    """A fitted `sklearn.pipeline.Pipeline` of a step before, or none, and a classifier.

    Attributes
    ----------
    pipeline
        It was fitted on float64 features, with labels that are positions among the classes.
    classes
        How many classes there are; not all of them need have been there to fit on.
    """

    pipeline: Any
    classes: int

    kind: ClassVar[str] = "sklearn"
    _FILE: ClassVar[str] = "head.skops"

    @property
    def gives(self) -> ScoreKind:
        """What the scores are."""
        return "probability" if hasattr(self.pipeline, "predict_proba") else "decision"

    def score(self, features: np.ndarray) -> np.ndarray:
        """Features of shape (n, width) → float64 of shape (n, k)."""
        rows = np.asarray(features, dtype=np.float64)
        if self.gives == "probability":
            found, missing = self.pipeline.predict_proba(rows), 0.0
        else:
            found, missing = self.pipeline.decision_function(rows), LEAST_SCORE
        if found.ndim == 1:  # of two classes: the second's
            found = np.column_stack([-found, found])
        scores = np.full((len(rows), self.classes), missing)
        scores[:, self.pipeline.classes_] = found
        return scores

    def dumps(self) -> bytes:
        """The head as bytes of skops's format: a zip of JSON and arrays."""
        import skops.io

        data: bytes = skops.io.dumps({"pipeline": self.pipeline, "classes": self.classes})
        return data

    @classmethod
    def loads(cls, data: bytes, where: object) -> Self:
        """Read what `dumps` gave.

        Raises
        ------
        ModelError
            It holds a type that is not trusted, or cannot be read.
        """
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        try:
            unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - TRUSTED)
            if unknown:
                raise ModelError(
                    f"The classifier in {where} has objects of the type {unknown[0]}, which tuner does not "
                    "trust: nothing of it was loaded. Use a model that a search of tuner made."
                )
            return cls(**skops.io.loads(data, trusted=sorted(TRUSTED)))
        except ModelError:
            raise
        except UntrustedTypesFoundException as error:
            raise ModelError(f"The classifier in {where} is not trusted: {first_line(error)}.") from None
        except Exception as error:  # whatever a damaged file makes of skops, zip and JSON
            raise ModelError(
                f"The classifier in {where} cannot be read by scikit-learn and skops: {first_line(error)}."
            ) from error

    def write(self, folder: Path) -> None:
        """Write the head to a folder that is there."""
        (folder / self._FILE).write_bytes(self.dumps())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote; errors as `loads`."""
        return cls.loads((folder / cls._FILE).read_bytes(), folder)


@dataclass(frozen=True)
class SklearnFit:
    """A fit, and what scikit-learn warned of meanwhile, each thing once."""

    head: SklearnHead
    warnings: tuple[str, ...]


def make_pipeline(params: TrialParams, seed: int) -> Any:
    """Make the `sklearn.pipeline.Pipeline` of a trial, which is not fitted yet."""
    from sklearn import decomposition
    from sklearn.preprocessing import Normalizer, StandardScaler

    step = {
        NONE: lambda: "passthrough",
        STANDARD_SCALER: StandardScaler,
        NORMALIZER: Normalizer,
        PCA: lambda: decomposition.PCA(params.components or None, random_state=seed),
    }[params.prestep]()
    return joined(step, make_classifier(params.row, params.own, seed))


def joined(before: Any, classifier: Any) -> Any:
    """A step, or "passthrough", and a classifier as a head has them."""
    from sklearn.pipeline import Pipeline

    return Pipeline([(PRESTEP, before), (_STEP, classifier)])


def make_classifier(row: Classifier, values: Mapping[str, Any], seed: int) -> Any:
    """Make a classifier of scikit-learn, which is not fitted yet."""
    module, _, name = row.implementation.rpartition(".")
    made = getattr(importlib.import_module(f"sklearn.{module}"), name)
    chance = {"random_state": seed} if row.seeded else {}
    return made(**row.fixed, **chance, **values)


def fit_sklearn(
    params: TrialParams,
    features: np.ndarray,
    label_index: np.ndarray,
    weights: np.ndarray | None,
    *,
    classes: int,
    seed: int,
) -> SklearnFit:
    """Fit a trial's classifier of scikit-learn.

    Parameters
    ----------
    features
        Floats of shape (n, width).
    label_index
        Whole numbers in [0, classes), of shape (n,).
    weights
        Floats above 0 of shape (n,); None: all weigh the same.

    Raises
    ------
    TrialError
        scikit-learn refuses the rows.
    """
    pipeline = make_pipeline(params, seed)
    weighted = {} if weights is None else {f"{_STEP}__sample_weight": weights}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            pipeline.fit(np.asarray(features, np.float64), np.asarray(label_index, np.int64), **weighted)
        except ValueError as error:
            raise TrialError(f"{params.row.title} cannot be fitted: {first_line(error)}.") from error
    said = dict.fromkeys(first_line(warning.message) for warning in warned)
    return SklearnFit(SklearnHead(pipeline, classes), tuple(said))
