"""Experiment tracking and hyperparameter tuning for image classification by transfer learning on Spark."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.base.errors import InvalidInput, SearchError, TunerError
    from tuner.experiment.file import read_experiment
    from tuner.experiment.schema import Experiment
    from tuner.imports.importing import Import, import_images
    from tuner.models.featurizer import DeepImageFeaturizer
    from tuner.models.loading import load_model
    from tuner.models.scorer import Scorer
    from tuner.registry.promotion import promote
    from tuner.searches.features import fill_cache
    from tuner.searches.resume import find_search
    from tuner.searches.search import SearchResult, run_search
    from tuner.searches.spot_check import SpotCheckResult, run_spot_check
    from tuner.serving.batch_evaluation import ModelEvaluation, evaluate_model
    from tuner.serving.sql_function import register_sql_function
    from tuner.sparkdl.images import read_images, readImages
    from tuner.sparkdl.keras_function import registerKerasImageUDF
    from tuner.sparkdl.predictor import DeepImagePredictor

# Imported when first used: a server or a worker that needs one name does not wait for Spark and MLflow.
_MODULES = {
    "DeepImageFeaturizer": "tuner.models.featurizer",
    "DeepImagePredictor": "tuner.sparkdl.predictor",
    "Experiment": "tuner.experiment.schema",
    "Import": "tuner.imports.importing",
    "InvalidInput": "tuner.base.errors",
    "ModelEvaluation": "tuner.serving.batch_evaluation",
    "Scorer": "tuner.models.scorer",
    "SearchError": "tuner.base.errors",
    "SearchResult": "tuner.searches.search",
    "SpotCheckResult": "tuner.searches.spot_check",
    "TunerError": "tuner.base.errors",
    "evaluate_model": "tuner.serving.batch_evaluation",
    "fill_cache": "tuner.searches.features",
    "find_search": "tuner.searches.resume",
    "import_images": "tuner.imports.importing",
    "load_model": "tuner.models.loading",
    "promote": "tuner.registry.promotion",
    "readImages": "tuner.sparkdl.images",
    "read_experiment": "tuner.experiment.file",
    "read_images": "tuner.sparkdl.images",
    "registerKerasImageUDF": "tuner.sparkdl.keras_function",
    "register_sql_function": "tuner.serving.sql_function",
    "run_search": "tuner.searches.search",
    "run_spot_check": "tuner.searches.spot_check",
}

__all__ = [
    "DeepImageFeaturizer",
    "DeepImagePredictor",
    "Experiment",
    "Import",
    "InvalidInput",
    "ModelEvaluation",
    "Scorer",
    "SearchError",
    "SearchResult",
    "SpotCheckResult",
    "TunerError",
    "evaluate_model",
    "fill_cache",
    "find_search",
    "import_images",
    "load_model",
    "promote",
    "readImages",
    "read_experiment",
    "read_images",
    "registerKerasImageUDF",
    "register_sql_function",
    "run_search",
    "run_spot_check",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
