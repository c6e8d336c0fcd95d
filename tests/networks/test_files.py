import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.models import embedded
from tuner.base.errors import NetworkError
from tuner.networks.files import check_precision, open_network, pack_saved_model

SAID = """
import os, sys
from tuner.networks.files import _without_notices
with _without_notices():
    os.write(2, b"Could not find cuda drivers on your machine\\nwarning: another\\n")
    print("of Python", file=sys.stderr)
os.write(2, b"after\\n")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )


def test_features_of_any_number_of_images_come_from_one_function(tmp_path: Path) -> None:
    network = embedded(tmp_path, "GaborNet")
    compute = open_network(Path(network.file), network.input_size, network.precision)
    images = np.random.default_rng(0).random((5, *network.input_size, 3), np.float32)
    together = compute(images)
    assert (together.shape, together.dtype) == ((5, network.width), np.float32)
    alone = np.concatenate([compute(images[place : place + 1]) for place in range(5)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    assert compute(images[:0]).shape == (0, network.width)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.keras", None, "There is no network .*: check the path"),
        ("broken.keras", b"no zip", "cannot be loaded as a Keras file: "),
        ("broken.pb", b"no graph", "neither a .keras file nor a SavedModel folder that can be loaded: "),
    ],
)
def test_a_file_that_is_no_network_is_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(NetworkError, match=sentence) as caught:
        open_network(file, (8, 8), "float32")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_only_a_keras_file_computes_in_another_precision(tmp_path: Path) -> None:
    check_precision(tmp_path / "a.keras", "bfloat16")
    check_precision(tmp_path / "a", "float32")
    with pytest.raises(NetworkError, match="is a SavedModel, whose precision is fixed"):
        check_precision(tmp_path / "a", "bfloat16")


def test_the_same_folder_gives_the_same_zip(tmp_path: Path) -> None:
    for name, order in (("one", ("a", "b")), ("other", ("b", "a"))):
        (tmp_path / name / "inner").mkdir(parents=True)
        for file in order:
            (tmp_path / name / "inner" / file).write_text(file)
        os.utime(tmp_path / name / "inner" / "a", (len(name), len(name)))
        pack_saved_model(tmp_path / name, tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_only_notices_are_held_back_and_only_meanwhile() -> None:
    assert run(SAID).stderr == "warning: another\nof Python\nafter\n"
