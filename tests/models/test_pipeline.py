import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession

from tests.helpers.models import assemble
from tuner.classifiers.parameters import TrialParams
from tuner.experiment.networks import NetworkSpec
from tuner.models.featurizer import DeepImageFeaturizer
from tuner.models.fitted.estimators import fit_estimator
from tuner.networks.resolution import Network, resolve_network
from tuner.networks.store import NetworkStore

LABELS = ("dark", "light")


@pytest.fixture(scope="module")
def gabornet(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return resolve_network(
        NetworkSpec(name="GaborNet"), "float32", NetworkStore(tmp_path_factory.mktemp("store"))
    )


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(level).integers(0, 20, (20, 30)) + level
    Image.fromarray(noise.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.long
def test_trial_parameters_reach_the_classifier_by_mllib_s_names(
    spark: SparkSession, gabornet: Network, tmp_path: Path
) -> None:
    rows = [(png(level), int(level > 100)) for level in (5, 10, 15, 20, 200, 205, 210, 215)]
    images = spark.createDataFrame(rows, "content binary, label_index int").coalesce(1)
    featurizer = DeepImageFeaturizer.from_network(gabornet, inputCol="content", outputCol="features")
    params = TrialParams.of(backbone="GaborNet", regParam=0.01, elasticNetParam=0.25, maxIter=7)
    model = fit_estimator(featurizer.transform(images).cache(), params)
    given = {name: model.getOrDefault(name) for name in ("regParam", "elasticNetParam", "maxIter")}
    assert given == {"regParam": 0.01, "elasticNetParam": 0.25, "maxIter": 7}

    pipeline = assemble(gabornet, model, LABELS, embedWeights=False)
    assert pipeline.stages[0].getOrDefault("embedWeights") is False
    scored = pipeline.transform(images.select("content").unionByName(spark.sql("select x'00' content")))
    names = [row.predicted_label for row in scored.collect()]
    assert names == [LABELS[index] for _, index in rows] + [None]
