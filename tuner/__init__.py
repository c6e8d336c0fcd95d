"""Experiment tracking and hyperparameter tuning for image classification by transfer learning on Spark."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.batch_evaluation import ModelEvaluation, evaluate_model
    from tuner.errors import InvalidInput, SearchError, TunerError
    from tuner.experiment import Experiment
    from tuner.experiment_file import read_experiment
    from tuner.featurizer import DeepImageFeaturizer
    from tuner.filling import fill_cache
    from tuner.search import SearchResult, run_search

# Imported when first used: a server or a worker that needs one name does not wait for Spark and MLflow.
_MODULES = {
    "DeepImageFeaturizer": "tuner.featurizer",
    "Experiment": "tuner.experiment",
    "InvalidInput": "tuner.errors",
    "ModelEvaluation": "tuner.batch_evaluation",
    "SearchError": "tuner.errors",
    "SearchResult": "tuner.search",
    "TunerError": "tuner.errors",
    "evaluate_model": "tuner.batch_evaluation",
    "fill_cache": "tuner.filling",
    "read_experiment": "tuner.experiment_file",
    "run_search": "tuner.search",
}

__all__ = [
    "DeepImageFeaturizer",
    "Experiment",
    "InvalidInput",
    "ModelEvaluation",
    "SearchError",
    "SearchResult",
    "TunerError",
    "evaluate_model",
    "fill_cache",
    "read_experiment",
    "run_search",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
