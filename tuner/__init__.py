"""Experiment tracking and hyperparameter tuning for image classification by transfer learning on Spark."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.base.errors import InvalidInput, SearchError, TunerError
    from tuner.experiment.file import read_experiment
    from tuner.experiment.schema import Experiment
    from tuner.models.featurizer import DeepImageFeaturizer
    from tuner.models.loading import load_model
    from tuner.models.scorer import Scorer
    from tuner.registry.promotion import promote
    from tuner.searches.features import fill_cache
    from tuner.searches.resume import find_search
    from tuner.searches.search import SearchResult, run_search
    from tuner.serving.batch_evaluation import ModelEvaluation, evaluate_model
    from tuner.serving.sql_function import register_sql_function

# Imported when first used: a server or a worker that needs one name does not wait for Spark and MLflow.
_MODULES = {
    "DeepImageFeaturizer": "tuner.models.featurizer",
    "Experiment": "tuner.experiment.schema",
    "InvalidInput": "tuner.base.errors",
    "ModelEvaluation": "tuner.serving.batch_evaluation",
    "Scorer": "tuner.models.scorer",
    "SearchError": "tuner.base.errors",
    "SearchResult": "tuner.searches.search",
    "TunerError": "tuner.base.errors",
    "evaluate_model": "tuner.serving.batch_evaluation",
    "fill_cache": "tuner.searches.features",
    "find_search": "tuner.searches.resume",
    "load_model": "tuner.models.loading",
    "promote": "tuner.registry.promotion",
    "read_experiment": "tuner.experiment.file",
    "register_sql_function": "tuner.serving.sql_function",
    "run_search": "tuner.searches.search",
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
