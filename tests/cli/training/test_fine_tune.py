import inspect
import subprocess
from pathlib import Path

import pytest

from tests.conftest import tuner
from tuner.cli.options import completing
from tuner.cli.training.fine_tune import fine_tune
from tuner.experiment.file import FINE_TUNE_OVERRIDES

KEYS = [
    name
    for name in inspect.signature(fine_tune).parameters
    if name not in ("experiment", "resume", "force", "master", "quiet", "as_json")
]


def test_the_options_are_the_keys_that_a_call_takes() -> None:
    assert set(KEYS) == set(FINE_TUNE_OVERRIDES)


@pytest.mark.parametrize("name", KEYS)
def test_every_option_can_be_asked(name: str) -> None:
    assert all(isinstance(value, str) for value in completing(name)(""))


def refused(folder: Path, *options: object) -> str:
    done: subprocess.CompletedProcess[str] = tuner(folder, "fine-tune", "--experiment", "a.yaml", *options)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.long
def test_what_cannot_be_trained_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nimages: nowhere\nsearch: {backbone: GlyphNet}\n")
    assert "the learning rate is 0, and must be above 0" in refused(tmp_path, "--learning_rate", "0")
    assert "unfreeze is 99, and the base GlyphNet has" in refused(tmp_path, "--unfreeze", "99")
    assert "has no layer block5 to unfreeze from" in refused(tmp_path, "--unfreeze", "block5")
    assert "--force is for a fine-tuning that another" in refused(tmp_path, "--force")
