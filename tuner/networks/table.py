"""The one table of networks: all of `keras.applications`, EfficientNet-Lite, those that tuner embeds."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from tuner.base.choices import Preprocessing
from tuner.base.errors import ExperimentError, NetworkError
from tuner.classifiers.rows.mllib import MODEL_TYPE, NOT_NEGATIVE
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.schema import Experiment


@dataclass(frozen=True)
class Architecture:
    """A row of the table: what is known of a network before any of its weights is loaded.

    Attributes
    ----------
    name : str
        The network's name in Keras, and in an experiment.
    module : str
        The public module of Keras (or of tuner) whose preprocessing and weights it uses.
    input_size : tuple of int
        Height and width in pixels that its weights were trained for.
    preprocessing : {"tf", "caffe", "torch", "unit", "none"}
        What its module's ``preprocess_input`` does; ``none`` where the network does it itself.
    width : int
        The number of features after global average pooling.
    licence : str
        SPDX identifier of the published weights' licence.
    weights : {"imagenet", "embedded"}
        The weights it has unless an experiment asks for others.
    """

    name: str
    module: str
    input_size: tuple[int, int]
    preprocessing: Preprocessing
    width: int
    licence: str
    weights: Literal["imagenet", "embedded"] = "imagenet"


def _family(
    module: str,
    preprocessing: Preprocessing,
    licence: str,
    members: dict[str, tuple[int, int]],
    package: str = "keras.applications",
) -> list[Architecture]:
    """Networks that share a module of a package; a member is its side in pixels and its width."""
    return [
        Architecture(name, f"{package}.{module}", (side, side), preprocessing, width, licence)
        for name, (side, width) in members.items()
    ]


def _embedded(name: str, width: int) -> Architecture:
    module = f"tuner.networks.embedded.{name.lower()}"
    return Architecture(name, module, (32, 32), "unit", width, "Apache-2.0", weights="embedded")


# Licences: as the Keras documentation states them (keras.io/applications, versions 2.2 and 2.3); for
# the families added since, that of the repository which published the weights: tensorflow/tpu,
# google/automl, tensorflow/models, facebookresearch/ConvNeXt.
_ROWS: list[Architecture] = [
    *_family("xception", "tf", "MIT", {"Xception": (299, 2048)}),
    *_family("vgg16", "caffe", "CC-BY-4.0", {"VGG16": (224, 512)}),
    *_family("vgg19", "caffe", "CC-BY-4.0", {"VGG19": (224, 512)}),
    *_family(
        "resnet",
        "caffe",
        "MIT",
        {"ResNet50": (224, 2048), "ResNet101": (224, 2048), "ResNet152": (224, 2048)},
    ),
    *_family(
        "resnet_v2",
        "tf",
        "BSD-3-Clause",
        {"ResNet50V2": (224, 2048), "ResNet101V2": (224, 2048), "ResNet152V2": (224, 2048)},
    ),
    *_family("inception_v3", "tf", "Apache-2.0", {"InceptionV3": (299, 2048)}),
    *_family("inception_resnet_v2", "tf", "Apache-2.0", {"InceptionResNetV2": (299, 1536)}),
    *_family("mobilenet", "tf", "Apache-2.0", {"MobileNet": (224, 1024)}),
    *_family("mobilenet_v2", "tf", "Apache-2.0", {"MobileNetV2": (224, 1280)}),
    *_family(
        "mobilenet_v3",
        "none",
        "Apache-2.0",
        {"MobileNetV3Small": (224, 576), "MobileNetV3Large": (224, 960)},
    ),
    *_family(
        "densenet",
        "torch",
        "BSD-3-Clause",
        {"DenseNet121": (224, 1024), "DenseNet169": (224, 1664), "DenseNet201": (224, 1920)},
    ),
    *_family("nasnet", "tf", "Apache-2.0", {"NASNetMobile": (224, 1056), "NASNetLarge": (331, 4032)}),
    *_family(
        "efficientnet",
        "none",
        "Apache-2.0",
        {
            "EfficientNetB0": (224, 1280),
            "EfficientNetB1": (240, 1280),
            "EfficientNetB2": (260, 1408),
            "EfficientNetB3": (300, 1536),
            "EfficientNetB4": (380, 1792),
            "EfficientNetB5": (456, 2048),
            "EfficientNetB6": (528, 2304),
            "EfficientNetB7": (600, 2560),
        },
    ),
    *_family(
        "efficientnet_v2",
        "none",
        "Apache-2.0",
        {
            "EfficientNetV2B0": (224, 1280),
            "EfficientNetV2B1": (240, 1280),
            "EfficientNetV2B2": (260, 1408),
            "EfficientNetV2B3": (300, 1536),
            "EfficientNetV2S": (384, 1280),
            "EfficientNetV2M": (480, 1280),
            "EfficientNetV2L": (480, 1280),
        },
    ),
    *_family(
        "convnext",
        "none",
        "MIT",
        {
            "ConvNeXtTiny": (224, 768),
            "ConvNeXtSmall": (224, 768),
            "ConvNeXtBase": (224, 1024),
            "ConvNeXtLarge": (224, 1536),
            "ConvNeXtXLarge": (224, 2048),
        },
    ),
    *_family(
        "efficientnet_lite",
        "tf",
        "Apache-2.0",
        {"EfficientNetLite0": (224, 1280), "EfficientNetLite2": (260, 1280)},
        package="tuner.networks",
    ),
    _embedded("GlyphNet", 192),
    _embedded("GaborNet", 384),
]

NETWORKS: dict[str, Architecture] = {network.name: network for network in _ROWS}
"""Every network by its name."""

# What does not end in a ReLU, whose mean is 0 or more, or in magnitudes.
_SIGNED = frozenset({"mobilenet_v3", "efficientnet", "efficientnet_v2", "convnext", "glyphnet"})


def may_be_negative(spec: NetworkSpec) -> bool:
    """Whether features of this network can be less than 0; those of a network of one's own can."""
    row = None if spec.file is not None else NETWORKS.get(spec.name)
    return row is None or row.module.rpartition(".")[2] in _SIGNED


def find_architecture(name: str) -> Architecture:
    """Return a row of the table.

    Raises
    ------
    NetworkError
        There is no network of that name; the message gives the nearest names.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    by_lower_case = {known.lower(): known for known in NETWORKS}
    near = difflib.get_close_matches(name.lower(), by_lower_case, cutoff=0.5)
    nearest = " or ".join(by_lower_case[match] for match in near)
    raise NetworkError(
        f"There is no network {name}: "
        + (f"did you mean {nearest}? " if near else f"there are {', '.join(NETWORKS)}. ")
        + "A network of your own needs its file."
    )


def check_names(experiment: Experiment) -> None:
    """Refuse an unknown network before Spark starts, and one that a classifier cannot go with.

    Weights are looked for later.

    Raises
    ------
    NetworkError
        The first unknown name, with the nearest known ones.
    ExperimentError
        There is no search; or a classifier takes no negative features, and the network may give some.
    """
    for spec in experiment.search.backbone:
        if spec.file is None:
            find_architecture(spec.name)
    if not experiment.search.backbone:
        raise ExperimentError(
            f"The experiment {experiment.name} has no search: add search with its backbone, or give it to "
            "what it is for: tuner learn, tuner fine-tune."
        )
    signed = [spec.name for spec in experiment.search.backbone if may_be_negative(spec)]
    for choice in experiment.search.choices:
        if choice.row.of_counts and signed:
            raise ExperimentError(
                f"{choice.row.name} takes no negative features, and those of {signed[0]} may be: leave one "
                "of them out."
            )
        kinds = [d.space.values for d in choice.dimensions if d.name == MODEL_TYPE]
        taken = [kind for kind in NOT_NEGATIVE if kinds and kind in kinds[0]]
        if taken and signed:
            raise ExperimentError(
                f"{choice.row.name} with {MODEL_TYPE} {taken[0]} takes no negative features, and those of "
                f"{signed[0]} may be: set {MODEL_TYPE} to gaussian, or leave the network out."
            )
