"""The tuner package as a zip, for workers that have none installed."""

from __future__ import annotations

import zipfile
from importlib.metadata import distribution
from pathlib import Path

import tuner


def pack_package(folder: Path) -> Path:
    """Write the running package, its data files and its metadata to a zip in `folder`; give its path.

    Python imports from it as it is. What reads data files by path does so on the driver alone.
    """
    package, installed = Path(tuner.__file__).parent, distribution("tuner")
    target = folder / f"tuner-{installed.version}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(package.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(package.parent))
        # What `importlib.metadata` is asked for on workers; in a source folder it finds an egg's.
        metadata = installed.read_text("METADATA") or installed.read_text("PKG-INFO")
        for name, text in (
            ("METADATA", metadata),
            ("direct_url.json", installed.read_text("direct_url.json")),
        ):
            if text:
                archive.writestr(f"tuner-{installed.version}.dist-info/{name}", text)
    return target
