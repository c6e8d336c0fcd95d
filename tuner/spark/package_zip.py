"""The tuner package as a zip, for workers that have none installed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import tuner
from tuner.base import distribution

_METADATA = f"{distribution.NAME.replace('-', '_')}-%s.dist-info"


def pack_package(folder: Path) -> Path:
    """Write the running package, its data files and its metadata to a zip in `folder`; give its path.

    Python imports from it as it is. What reads data files by path does so on the driver alone.
    """
    package, version = Path(tuner.__file__).parent, distribution.version()
    target = folder / f"tuner-{version}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(package.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(package.parent))
        # What `importlib.metadata` is asked for on workers; in a source folder it finds an egg's.
        metadata = distribution.metadata_file("METADATA") or distribution.metadata_file("PKG-INFO")
        for name, text in (
            ("METADATA", metadata),
            ("direct_url.json", distribution.metadata_file("direct_url.json")),
        ):
            if text:
                archive.writestr(f"{_METADATA % version}/{name}", text)
    return target
