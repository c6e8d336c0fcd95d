"""What a search reads and writes: images, MLflow's store and its model registry, the feature cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import mlflow

from tuner.base.errors import CacheError, ImageSourceError, TrackingError
from tuner.base.uris import local_path
from tuner.doctor.findings import Finding
from tuner.experiment.schema import Experiment
from tuner.extraction.cache import FeatureCache
from tuner.extraction.place import CachePlace
from tuner.registry.versions import holder_of
from tuner.spark.jvm import can_hold_files
from tuner.tracking.answering import without_credentials
from tuner.tracking.store import open_registry, open_tracking, sqlite_file

HERE = "unset MLFLOW_TRACKING_URI (runs then go to mlflow.db here)"


def check_images(experiment: Experiment) -> Iterator[Finding]:
    """Whether the images are there, if they are a folder or a file of this machine.

    Raises
    ------
    ImageSourceError
        They are not.
    """
    source = experiment.images
    if source.startswith("builtin:"):
        yield Finding("images", "ok", f"{source} comes with a package")
        return
    place = None if source.startswith("table:") or set(source) & set("*?[") else local_path(source)
    if place is None:
        yield Finding("images", "left out", f"{source} is read by the search itself")
        return
    if not place.exists():
        raise ImageSourceError(
            f"There is no folder {source}: check images in the experiment, and where you are."
        )
    yield Finding("images", "ok", f"{place.absolute()} is there")


def check_store(experiment: Experiment) -> Iterator[Finding]:
    """Whether MLflow's store answers and takes runs; nothing is made in it.

    Raises
    ------
    TrackingError
        As a search would.
    """
    store = open_registry()
    shown, file = without_credentials(store.uri), sqlite_file(store.uri)
    if file is not None and not file.exists():
        yield from _store_to_be(file)
        return
    if file is not None and not can_hold_files(file.parent):
        raise TrackingError(
            f"The MLflow tracking store {shown} cannot be written: {file.parent} takes no files."
        )
    found = open_tracking(experiment.name, make=False)
    known = "there" if found.experiment_id else "made by the first search"
    yield Finding("MLflow store", "ok", f"{file or shown}; its experiment {experiment.name} is {known}")


def _store_to_be(file: Path) -> Iterator[Finding]:
    if not can_hold_files(file.parent):
        raise TrackingError(f"MLflow's store {file} cannot be made there: {file.parent} takes no files.")
    yield Finding("MLflow store", "ok", f"{file} is made by the first search")


def check_registry(experiment: Experiment) -> Iterator[Finding]:
    """Whether the model registry answers, as a search asks it before it begins.

    Raises
    ------
    TrackingError
        As a search would.
    """
    store = open_registry()
    registry = mlflow.get_registry_uri()
    file = sqlite_file(registry)
    if file is not None and not file.exists():
        yield Finding("MLflow registry", "ok", "it is made with the store")
        return
    holder = holder_of(store, experiment.model_name, experiment.registry.alias)
    alias = experiment.registry.alias
    said = (
        f"{alias} of {experiment.model_name} is version {holder.version}"
        if holder
        else (f"{experiment.model_name} has no {alias} yet")
    )
    yield Finding("MLflow registry", "ok", f"{file or without_credentials(registry)}; {said}")


def check_cache(experiment: Experiment) -> Iterator[Finding]:
    """Whether the feature cache can be written; a folder that was not there is not left behind.

    Raises
    ------
    CacheError
        As a search would.
    """
    place = CachePlace(experiment.cache)
    new = [folder for folder in (place.root, *place.root.parents) if not folder.exists()]
    cache = FeatureCache(experiment.cache)
    known = "there" if not new else "made by the first search"
    where = f"{place.uri}, with a copy in {cache.root}" if place.uri else str(cache.root)
    cache.close()
    if new:
        with suppress(OSError):
            for file in cache.root.iterdir():
                file.unlink()
            for folder in new:
                folder.rmdir()
    yield Finding("cache", "ok", f"{where}: {known}")


def written_folders(experiment: Experiment) -> dict[str, Path]:
    """Where on this machine a search writes, by what it keeps there."""
    folders = {"the feature cache": Path.cwd()}
    with suppress(CacheError):
        folders["the feature cache"] = CachePlace(experiment.cache).root
    store = sqlite_file(open_registry().uri) or local_path(mlflow.get_tracking_uri())
    if store is not None:
        folders["MLflow"] = store.absolute()
    return folders
