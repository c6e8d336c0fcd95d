from pathlib import Path

import pytest

from tests.helpers.training import SIDE, small_base, small_network
from tuner.base.errors import NetworkError
from tuner.experiment.networks import NetworkSpec
from tuner.experiment.training.fine_tuning import FineTune
from tuner.networks.store import NetworkStore
from tuner.training.bases import Base, check_unfreeze, find_base, open_base, unfreeze


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return small_base(tmp_path_factory.mktemp("base"))


def own(file: Path, side: int = SIDE) -> NetworkSpec:
    return NetworkSpec(name="mine", file=file, input_size=(side, side), preprocessing="unit")


@pytest.mark.parametrize(
    ("what", "learning", "said"),
    [
        ("all", {"first", "normal", "last"}, "all of its layers"),
        ("none", set(), "none of its layers"),
        (1, {"normal", "last"}, "2 of its 3 layers, from normal on"),
        (-1, {"last"}, "1 of its 3 layers, from last on"),
        ("normal", {"normal", "last"}, "2 of its 3 layers, from normal on"),
    ],
)
def test_layers_are_counted_as_python_slices(
    base: Base, what: int | str, learning: set[str], said: str
) -> None:
    opened = open_base(base)
    unfreeze(opened, base, "none")
    assert unfreeze(opened, base, what) == said
    assert {layer.name for layer in opened.layers if layer.trainable_weights} == learning


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (3, "unfreeze is 3, and the base small has 3 layers, the last of which is number 2: lower it"),
        (-4, "unfreeze is -4, and the base small has 3 layers"),
        ("block5", "The base small has no layer block5 to unfreeze from: its last ones are first, normal"),
    ],
)
def test_layers_beyond_the_network_are_refused(base: Base, what: int | str, sentence: str) -> None:
    with pytest.raises(NetworkError, match=sentence):
        check_unfreeze(base, ["all", what])


def test_a_base_that_takes_another_size_is_refused(base: Base, tmp_path: Path) -> None:
    assert base.file is not None
    store = NetworkStore(tmp_path)
    with pytest.raises(NetworkError, match="takes images of 12 x 12 pixels, and its input_size is stated"):
        find_base(own(base.file, 32), store)
    found = find_base(own(base.file), store)
    assert (found.input_size, found.preprocessing, found.own) == ((SIDE, SIDE), "unit", True)


def test_a_small_cnn_is_the_source_s(tmp_path: Path) -> None:
    spec = FineTune.model_validate({"base": "small-cnn"}).base
    assert spec is not None
    opened = open_base(find_base(spec, NetworkStore(tmp_path)))
    filters = [layer.filters for layer in opened.layers if hasattr(layer, "filters")]
    assert filters == [32, 64]
    assert opened.output_shape == (None, 14 * 14 * 64)
    small = NetworkSpec(name="small-cnn", input_size=(5, 5), preprocessing="unit")
    with pytest.raises(NetworkError, match="cannot be built for images of 5 x 5 pixels"):
        find_base(small, NetworkStore(tmp_path))


def test_of_a_saved_model_all_learns_or_nothing(tmp_path: Path) -> None:
    small_network().export(tmp_path / "graph", verbose=False)
    base = find_base(own(tmp_path / "graph"), NetworkStore(tmp_path / "store"))
    assert base.is_saved_model
    opened = open_base(base)
    assert unfreeze(opened, base, "all") == "all of its layers"
    assert len(opened.trainable_weights) == 6
    assert unfreeze(opened, base, "none") == "none of its layers"
    assert not opened.trainable_weights
    with pytest.raises(NetworkError, match="is a SavedModel, whose layers cannot be told apart"):
        unfreeze(opened, base, 15)


def test_a_saved_model_without_a_serving_signature_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(NetworkError, match="has no serving signature serving_default, so it is not known"):
        find_base(own(tmp_path / "empty"), NetworkStore(tmp_path / "store"))
