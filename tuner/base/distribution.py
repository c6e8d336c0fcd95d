"""The distribution tuner comes in: its name on an index, version, requirements and origin; and as a zip."""

from __future__ import annotations

import importlib.metadata
import zipfile
from pathlib import Path

import tuner

NAME = "transfer-tuner"  # `tuner` on the public index is a musical instrument's; the import name is `tuner`


def version() -> str:
    """The installed version."""
    return importlib.metadata.version(NAME)


def requirements() -> list[str]:
    """What it requires, extras included, as its metadata has it."""
    return importlib.metadata.requires(NAME) or []


def metadata_file(name: str) -> str | None:
    """The text of a file of its metadata, such as `direct_url.json`; None if there is none."""
    return importlib.metadata.distribution(NAME).read_text(name)


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
        metadata = metadata_file("METADATA") or metadata_file("PKG-INFO")
        for name, text in (("METADATA", metadata), ("direct_url.json", metadata_file("direct_url.json"))):
            if text:
                archive.writestr(f"{NAME.replace('-', '_')}-{installed}.dist-info/{name}", text)
    return target
