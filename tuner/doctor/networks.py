"""TensorFlow, tried on a network, and the weights that searches would need."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import numpy as np

from tuner.base.errors import NetworkError
from tuner.doctor.findings import Finding
from tuner.experiment.schema import Experiment
from tuner.extraction.place import CachePlace
from tuner.networks.builders import weights_at_hand, weights_folder
from tuner.networks.efficientnet_lite import LITE_NETWORKS, find_weights
from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.files import import_keras, open_network
from tuner.networks.resolution import recall_network
from tuner.networks.store import NetworkStore
from tuner.networks.table import NETWORKS, check_names

_TRIED = "GlyphNet"
LITE_PACKAGES = "pip install 'transfer-tuner[efficientnet]'"


def check_tensorflow() -> Iterator[Finding]:
    """Let TensorFlow take two images through a network that comes with the package."""
    import_keras()
    import tensorflow as tf

    run = open_network(NETWORK_FILES[_TRIED], NETWORKS[_TRIED].input_size, "float32")
    features = run(np.zeros((2, *NETWORKS[_TRIED].input_size, 3), np.float32))
    said = f"TensorFlow {tf.__version__} with Keras {version('keras')} took images through {_TRIED}"
    if features.shape != (2, NETWORKS[_TRIED].width) or not np.isfinite(features).all():
        raise NetworkError(
            f"TensorFlow {tf.__version__} gives wrong features of {_TRIED}: install it anew."
        )
    yield Finding("TensorFlow", "ok", said)
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        yield Finding("GPU", "note", "there is none; networks run on the CPU, and a search needs none")
    else:
        yield Finding("GPU", "ok", ", ".join(gpu.name for gpu in gpus))


def check_weights(experiment: Experiment) -> Iterator[Finding]:
    """Whether the experiment's networks can be had here, and which others can.

    Raises
    ------
    NetworkError
        As a search would, of a name or a file.
    """
    check_names(experiment)
    store = NetworkStore(CachePlace(experiment.cache).root)
    at_hand = weights_at_hand()
    names = []
    for spec in experiment.search.backbone:
        known = recall_network(spec, experiment.precision, store, experiment.decoding)
        row = NETWORKS.get(spec.name) if spec.file is None else None
        weights = (spec.weights or row.weights) if row else "file"
        if known is None and weights == "imagenet" and spec.name in LITE_NETWORKS:
            find_weights(spec.name)
        elif known is None and weights == "imagenet" and spec.name not in at_hand:
            said = f"The ImageNet weights of {spec.name} are not here: a search downloads them, once"
            yield Finding("weights", "note", f"{said}, to {weights_folder()}.")
            continue
        names.append(spec.name)
    if names:
        yield Finding("weights", "ok", f"{', '.join(names)} of the experiment {experiment.name} can be had")
    if at_hand:
        yield Finding("weights", "ok", f"ImageNet weights that are here: {', '.join(at_hand)}")
    else:
        said = "There are no ImageNet weights here, which photographs need; the digits do not."
        yield Finding("weights", "note", said, LITE_PACKAGES)
