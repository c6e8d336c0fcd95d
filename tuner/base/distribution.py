"""The distribution tuner comes in: its name on an index, version, requirements; as zip and wheel."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import zipfile
from collections.abc import Sequence
from pathlib import Path

import tuner

NAME = "transfer-tuner"  # `tuner` on the public index is a musical instrument's; the import name is `tuner`


def version() -> str:
    """The installed version."""
    return importlib.metadata.version(NAME)


def requirements() -> list[str]:
    """What it requires, extras included, as its metadata has it."""
    return importlib.metadata.requires(NAME) or []


def pack_wheel(folder: Path, parts: Sequence[str]) -> Path:
    """Write a wheel of some of the running package's modules to `folder`; give its path.

    It has the distribution's own name and version, so that an environment holds one tuner, never two on top
    of each other. The build number in the file's name tells the contents: other code has another name, as
    is needed where an environment is known by the names of what is in it.

    Parameters
    ----------
    folder
        Where to write it.
    parts
        Modules and folders of the package, as in ``("base", "models/scorer.py")``.

    References
    ----------
    PyPA, "Binary distribution format", https://packaging.python.org/specifications/binary-distribution-format/
    """
    package, installed = Path(tuner.__file__).parent, version()
    stem = f"{NAME.replace('-', '_')}-{installed}"
    info = f"{stem}.dist-info"
    files = {package / "__init__.py"}
    for part in parts:
        place = package / part
        files |= set(place.rglob("*.py") if place.is_dir() else [place])
        files |= {above / "__init__.py" for above in place.parents if above.is_relative_to(package)}
    contents = {file.relative_to(package.parent).as_posix(): file.read_bytes() for file in sorted(files)}
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {installed}\n".encode()
    described = "Wheel-Version: 1.0\nGenerator: tuner\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents[f"{info}/WHEEL"] = described.encode()
    record = "".join(
        f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in contents.items()
    )
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    build = f"0x{hashlib.sha256(record.encode()).hexdigest()[:16]}"
    target = folder / f"{stem}-{build}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return target


def _digest(content: bytes) -> str:
    """As wheels have it: base64 for URLs, without its padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def pack_package(folder: Path) -> Path:
    """Write the running package, its data files and its metadata to a zip in `folder`; give its path.

    For workers that have none installed: Python imports from it as it is. What reads data files by path
    does so on the driver alone.
    """
    package, installed = Path(tuner.__file__).parent, version()
    target = folder / f"tuner-{installed}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(package.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(package.parent))
        # What `importlib.metadata` is asked for on workers; in a source folder it finds an egg's.
        found = importlib.metadata.distribution(NAME)
        metadata = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
        archive.writestr(f"{NAME.replace('-', '_')}-{installed}.dist-info/METADATA", metadata)
    return target
