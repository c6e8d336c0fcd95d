"""Experiment tracking and hyperparameter tuning for image classification by transfer learning on Spark."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.api.feature_arrays import Features, features
    from tuner.api.models import Model, load
    from tuner.api.promotion import ModelComparison, compare, promote
    from tuner.api.results import SearchResult
    from tuner.api.searching import search
    from tuner.api.spot_checking import SpotCheckResult, spot_check
    from tuner.api.training.fine_tuning import fine_tune
    from tuner.api.training.learning import LearnResult, learn
    from tuner.base.errors import InvalidInput, SearchError, TunerError
    from tuner.experiment.file import read_experiment
    from tuner.experiment.schema import Experiment
    from tuner.imports.importing import Import, import_images
    from tuner.models.featurizer import DeepImageFeaturizer
    from tuner.models.scorer import Scorer
    from tuner.registry.promotion import Promotion
    from tuner.searches.tuning.fine_tune import FineTuning
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
    "Features": "tuner.api.feature_arrays",
    "FineTuning": "tuner.searches.tuning.fine_tune",
    "Import": "tuner.imports.importing",
    "InvalidInput": "tuner.base.errors",
    "LearnResult": "tuner.api.training.learning",
    "Model": "tuner.api.models",
    "ModelComparison": "tuner.api.promotion",
    "ModelEvaluation": "tuner.serving.batch_evaluation",
    "Promotion": "tuner.registry.promotion",
    "Scorer": "tuner.models.scorer",
    "SearchError": "tuner.base.errors",
    "SearchResult": "tuner.api.results",
    "SpotCheckResult": "tuner.api.spot_checking",
    "TunerError": "tuner.base.errors",
    "compare": "tuner.api.promotion",
    "evaluate_model": "tuner.serving.batch_evaluation",
    "features": "tuner.api.feature_arrays",
    "fine_tune": "tuner.api.training.fine_tuning",
    "import_images": "tuner.imports.importing",
    "learn": "tuner.api.training.learning",
    "load": "tuner.api.models",
    "promote": "tuner.api.promotion",
    "readImages": "tuner.sparkdl.images",
    "read_experiment": "tuner.experiment.file",
    "read_images": "tuner.sparkdl.images",
    "registerKerasImageUDF": "tuner.sparkdl.keras_function",
    "register_sql_function": "tuner.serving.sql_function",
    "search": "tuner.api.searching",
    "spot_check": "tuner.api.spot_checking",
}

__all__ = [
    "DeepImageFeaturizer",
    "DeepImagePredictor",
    "Experiment",
    "Features",
    "FineTuning",
    "Import",
    "InvalidInput",
    "LearnResult",
    "Model",
    "ModelComparison",
    "ModelEvaluation",
    "Promotion",
    "Scorer",
    "SearchError",
    "SearchResult",
    "SpotCheckResult",
    "TunerError",
    "compare",
    "evaluate_model",
    "features",
    "fine_tune",
    "import_images",
    "learn",
    "load",
    "promote",
    "readImages",
    "read_experiment",
    "read_images",
    "registerKerasImageUDF",
    "register_sql_function",
    "search",
    "spot_check",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tuner' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
