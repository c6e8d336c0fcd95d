"""The winner's network as ONNX: exported beside the last fit, its answers compared, and both said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from tuner.base.errors import NetworkError
from tuner.base.machine import machine_cores
from tuner.base.wording import first_line
from tuner.classifiers.heads.files import Head
from tuner.models.flavor import example_of
from tuner.networks.exporting.stored import exported
from tuner.networks.inference import BATCH_SIZE, content_reader, featurize
from tuner.networks.resolution import Network, load_network
from tuner.networks.store import NetworkStore
from tuner.preparation.images import PreparedImages, some_images
from tuner.storage.mirror import brought_here
from tuner.tracking import names
from tuner.tracking.run_log import RunLog

_COMPARED = 32  # images; the largest network of the table takes ten seconds for them
_EXPORTED_ON = 8

OnnxOf = Callable[[Head], Path | None]
FeaturesOf = Callable[[Sequence[str]], np.ndarray]


@contextmanager
def winners_onnx(
    store: NetworkStore,
    prepared: PreparedImages,
    network: Network,
    features: FeaturesOf,
    *,
    files: Path,
    run: RunLog,
    console: Console,
) -> Iterator[OnnxOf]:
    """Export the winner's network, unless the store has it as ONNX, while the block fits the winner.

    Parameters
    ----------
    store
        Of networks; what is exported is kept there.
    prepared, network
        The search's images, and what they went through.
    features
        What TensorFlow computed of images, by their digests: float32 of shape (n, width).
    files
        What the search's models share: an image is among it.
    run
        Where it is logged how many images get another class by ONNX Runtime's features.
    console
        Where it is said what became of it.

    Yields
    ------
    A function of the fitted classifier that waits for the export, and gives the ONNX file that the model
    shall carry; None: it stays with TensorFlow.
    """
    contents = some_images(prepared, _COMPARED)
    example = example_of(brought_here(files))

    def say(sentence: str) -> None:
        console.print(f"{network.name} is served {sentence}.", soft_wrap=True)

    with exported(network, store, [example, *list(contents.values())[:_EXPORTED_ON]]) as result:

        def wait(head: Head) -> Path | None:
            done = result()
            if done.file is None:
                say(f"by TensorFlow, not as ONNX: {done.reason}")
                return None
            try:
                compared, other = _other_classes(features, network, done.file, head, contents)
            except NetworkError as error:
                say(f"by TensorFlow, not as ONNX: {first_line(error)}")
                return None
            run.batch(metrics={names.ONNX_OTHER_CLASSES: other})
            differ = done.difference
            how_far = "" if differ is None else f"features differ by {differ:.2g} of the largest, and "
            say(f"as ONNX: {how_far}{other} of {compared} images get another class than by TensorFlow")
            return done.file

        yield wait


def _other_classes(
    features: FeaturesOf, network: Network, onnx: Path, head: Head, contents: Mapping[str, bytes]
) -> tuple[int, int]:
    """How many images were compared, and how many of them get another class by ONNX Runtime's features.

    A linear classifier hardly differs; a tree or a neighbour may, where a feature is at a threshold.
    """
    as_onnx = replace(network, file=str(onnx))
    compute = load_network(as_onnx, onnx, machine_cores())
    outcomes = featurize(contents.values(), content_reader(network), compute, BATCH_SIZE)
    good = {
        digest: found for digest, (found, _) in zip(contents, outcomes, strict=True) if found is not None
    }
    if not good:
        return 0, 0
    expected = head.score(features(list(good))).argmax(axis=1)
    found = head.score(np.stack(list(good.values()))).argmax(axis=1)
    return len(good), int((expected != found).sum())
