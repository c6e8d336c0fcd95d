"""What the transformers of images share, beside what is tried with each of them: their parameters."""

from collections.abc import Callable
from typing import Any

import pytest

from tuner.models.featurizer import DeepImageFeaturizer
from tuner.models.stages.transformer import NetworkTransformer
from tuner.sparkdl.predictor import DeepImagePredictor

KINDS = [DeepImageFeaturizer, DeepImagePredictor]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "name", "value"),
    [
        (lambda stage: stage.setInputCol("image"), "inputCol", "image"),
        (lambda stage: stage.setOutputCol("made"), "outputCol", "made"),
        (lambda stage: stage.setModelName("ResNet50"), "modelName", "ResNet50"),
        (lambda stage: stage.setParams(batchSize=3, weights=None), "batchSize", 3),
    ],
)
def test_parameters_are_set_as_sparkdl_sets_them(
    kind: type[NetworkTransformer],
    change: Callable[[NetworkTransformer], NetworkTransformer],
    name: str,
    value: Any,
    spark: object,
) -> None:
    stage = kind(modelName="VGG16")
    assert change(stage) is stage
    assert stage.getOrDefault(name) == value
    assert stage.getModelName() == stage.getOrDefault("modelName")
    assert not stage.isSet("weights")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_parameter_is_refused_by_name(kind: type[NetworkTransformer], spark: object) -> None:
    with pytest.raises(TypeError, match="no parameter scaleHint"):
        kind().setParams(scaleHint="SCALE_FAST")
    with pytest.raises(TypeError, match="scaleHint"):
        kind(scaleHint="SCALE_FAST")
