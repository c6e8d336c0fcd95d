import subprocess
import sys
from pathlib import Path

from tuner.base import distribution
from tuner.base.distribution import NAME, pack_package


def test_the_zip_is_the_package_with_its_version_and_data(tmp_path: Path):
    file = pack_package(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(file)!r})\n"
        "import tuner.checks.worker\n"
        "from importlib.metadata import version\n"
        "from importlib.resources import files\n"
        "print(tuner.checks.worker.__file__)\n"
        f"print(version({NAME!r}))\n"
        "data = files('tuner') / 'networks' / 'embedded' / 'glyphnet.keras'\n"
        "print(len(data.read_bytes()) > 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    found, metadata, data = done.stdout.splitlines()
    assert found.startswith(f"{file}/tuner/")
    assert (metadata, data) == (distribution.version(), "True")
