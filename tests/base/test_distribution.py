import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from tuner.base import distribution
from tuner.base.distribution import NAME, pack_package, pack_wheel


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


def test_a_wheel_is_named_by_what_is_in_it(tmp_path: Path):
    (tmp_path / "again").mkdir()
    wheel = pack_wheel(tmp_path, ["base", "images/decoding.py"])
    again = pack_wheel(tmp_path / "again", ["images/decoding.py", "base"])
    other = pack_wheel(tmp_path, ["base"])
    assert wheel.name == again.name != other.name
    assert wheel.read_bytes() == again.read_bytes()
    assert wheel.name.startswith(f"transfer_tuner-{distribution.version()}-0x")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {"tuner/__init__.py", "tuner/images/__init__.py", "tuner/images/decoding.py"} <= set(names)
        assert not [name for name in names if "pycache" in name or "images/index" in name]
        info = f"transfer_tuner-{distribution.version()}.dist-info"
        rows = list(csv.reader(archive.read(f"{info}/RECORD").decode().splitlines()))
        assert sorted(name for name, _, _ in rows) == sorted(names)
        for name, digest, size in rows[:-1]:
            content = archive.read(name)
            padded = digest.removeprefix("sha256=") + "="
            assert base64.urlsafe_b64decode(padded) == hashlib.sha256(content).digest()
            assert int(size) == len(content)


def test_pip_installs_a_wheel(tmp_path: Path):
    wheel = pack_wheel(tmp_path, ["base"])
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--target", tmp_path / "aside", wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "aside" / "tuner" / "base" / "errors.py").is_file()
