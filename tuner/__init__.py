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
    from tuner.flavor import load_model
    from tuner.promotion import promote
    from tuner.resume import find_search
    from tuner.scorer import Scorer
    from tuner.search import SearchResult, run_search
    from tuner.sql_functions import register_sql_function

# Imported when first used: a server or a worker that needs one name does not wait for Spark and MLflow.
_MODULES = {
    "DeepImageFeaturizer": "tuner.featurizer",
    "Experiment": "tuner.experiment",
    "InvalidInput": "tuner.errors",
    "ModelEvaluation": "tuner.batch_evaluation",
    "Scorer": "tuner.scorer",
    "SearchError": "tuner.errors",
    "SearchResult": "tuner.search",
    "TunerError": "tuner.errors",
    "evaluate_model": "tuner.batch_evaluation",
    "fill_cache": "tuner.filling",
    "find_search": "tuner.resume",
    "load_model": "tuner.flavor",
    "promote": "tuner.promotion",
    "read_experiment": "tuner.experiment_file",
    "register_sql_function": "tuner.sql_functions",
    "run_search": "tuner.search",
}

__all__ = [
    "DeepImageFeaturizer",
    "Experiment",
    "InvalidInput",
    "ModelEvaluation",
    "Scorer",
    "SearchError",
    "SearchResult",
    "TunerError",
    "evaluate_model",
    "fill_cache",
    "find_search",
    "load_model",
    "promote",
    "read_experiment",
    "register_sql_function",
    "run_search",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
