import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tuner.spark.package_zip import pack_package


def test_the_zip_is_the_package_with_its_version_and_data(tmp_path: Path):
    file = pack_package(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(file)!r})\n"
        "import tuner.checks.worker\n"
        "from importlib.metadata import version\n"
        "from importlib.resources import files\n"
        "print(tuner.worker_check.__file__)\n"
        "print(version('tuner'))\n"
        "print(len((files('tuner') / 'networks' / 'glyphnet.keras').read_bytes()) > 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    found, metadata, data = done.stdout.splitlines()
    assert found.startswith(f"{file}/tuner/")
    assert (metadata, data) == (version("tuner"), "True")
