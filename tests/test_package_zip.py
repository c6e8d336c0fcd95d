import subprocess
import sys
from pathlib import Path

from tuner.package_zip import pack_package


def test_the_zip_is_the_package_with_its_version_and_data(tmp_path: Path):
    file = pack_package(tmp_path)
    script = (
        f"import sys; sys.path.insert(0, {str(file)!r})\n"
        "import tuner.worker_check, tuner.networks\n"
        "from importlib.metadata import version, distribution\n"
        "from importlib.resources import files\n"
        "print(tuner.worker_check.__file__)\n"
        "print(version('tuner'), distribution('tuner').read_text('direct_url.json') is not None)\n"
        "print(len((files('tuner.networks') / 'glyphnet.keras').read_bytes()) > 1000)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    found, metadata, data = done.stdout.splitlines()
    assert found.startswith(f"{file}/tuner/")
    assert (metadata, data) == ("0.1.0 True", "True")
