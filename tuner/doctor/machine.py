"""The machine: the packages of its Python, its memory, disks and ports, proxies and other variables."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from tuner.base import distribution
from tuner.base.machine import UI_PORT, machine_cores, memory_mib
from tuner.doctor.findings import Finding
from tuner.tracking.answering import without_credentials

_GIB = 2**30
_LEAST_MEMORY_MIB, _FAIR_MEMORY_MIB = 2048, 4096  # the JVM, the driver and two workers
_LEAST_DISK, _FAIR_DISK = _GIB // 2, 5 * _GIB
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_PROXY_SECONDS = 3
# What decides something about a search, and what that is. Variables of another Spark are said by its start.
_VARIABLES: Mapping[str, str] = {
    "MLFLOW_TRACKING_URI": "where runs and models go",
    "MLFLOW_REGISTRY_URI": "where models are registered",
    "MLFLOW_EXPERIMENT_NAME": "the MLflow experiment of every search",
    "MLFLOW_EXPERIMENT_ID": "the MLflow experiment of every search",
    "MLFLOW_RUN_ID": "the run that a search writes to: meant for `mlflow run` alone",
    "MASTER": "the Spark master, if it is one",
    "SPARK_CONF_DIR": "where spark-defaults.conf is",
    "SPARK_DRIVER_MEMORY": "the memory of Spark's JVM",
    "HADOOP_CONF_DIR": "how Hadoop's filesystems are reached",
    "JAVA_HOME": "the Java that Spark starts with",
    "JAVA_TOOL_OPTIONS": "options of every JVM",
    "JDK_JAVA_OPTIONS": "options of every JVM",
    "_JAVA_OPTIONS": "options of every JVM",
    "KERAS_HOME": "where Keras keeps ImageNet weights",
    "TMPDIR": "where temporary files are, Spark's among them",
}
_COSTLY = {"PYTHONDONTWRITEBYTECODE": "each process compiles its libraries anew, seconds a start"}


def check_python(requirements: Sequence[str] | None = None) -> Iterator[Finding]:
    """Which Python runs, and whether it has the packages that tuner asks for, in versions that fit.

    Parameters
    ----------
    requirements
        What is asked for, as a distribution's metadata states it; None: what tuner's own does.
    """
    try:
        stated = distribution.requirements() if requirements is None else requirements
        own = distribution.version()
    except PackageNotFoundError:
        yield Finding("Python", "note", "tuner itself is not installed in this Python, only imported.")
        return
    asked = [
        requirement
        for requirement in map(Requirement, stated)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]
    odd = [
        f"{requirement.name} {found or 'is missing'}, wanted {requirement.specifier}"
        for requirement in asked
        if (found := _version(requirement.name)) is None or not requirement.specifier.contains(found, True)
    ]
    said = f"{sys.version.split()[0]}, {sys.executable}; tuner {own}"
    if odd:
        fix = f"{sys.executable} -m pip install '{distribution.NAME}=={own}' (in a clone: make setup)"
        yield Finding("Python", "wrong", f"{said} needs other packages: {'; '.join(odd)}.", fix)
    else:
        yield Finding("Python", "ok", f"{said} with {len(asked)} packages in versions that fit")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_memory(mib: int | None = None) -> Iterator[Finding]:
    """Whether memory suffices for a JVM, the driver and two workers."""
    mib = memory_mib() if mib is None else mib
    said = f"{machine_cores()} cores, {mib / 1024:.1f} GiB of memory for this process"
    if mib < _LEAST_MEMORY_MIB:
        yield Finding(
            "memory",
            "wrong",
            f"{said}: a search needs {_LEAST_MEMORY_MIB // 1024} GiB at least.",
            "give the container or the machine more memory (docker run --memory 4g)",
        )
    elif mib < _FAIR_MEMORY_MIB:
        yield Finding(
            "memory", "note", f"{said}: one trial at a time fits.", "tuner search --parallelism 1"
        )
    else:
        yield Finding("memory", "ok", said)


def check_disks(folders: Mapping[str, Path], free: Mapping[Path, int] | None = None) -> Iterator[Finding]:
    """How much is free where a search writes; folders of one disk are one finding.

    Parameters
    ----------
    folders
        By what a search keeps there.
    free
        The bytes that are free in each; None: as the system says.
    """
    disks: dict[tuple[int, int], list[str]] = {}
    for use, folder in {**folders, "temporary files": Path(tempfile.gettempdir())}.items():
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        usage = shutil.disk_usage(there)
        if not usage.total:  # no disk, as /proc
            continue
        size = usage.free if free is None else free[folder]
        disks.setdefault((there.stat().st_dev, size), []).append(f"{use} ({folder})")
    for (_, size), uses in disks.items():
        said = f"{size / _GIB:.1f} GiB are free for {', '.join(uses)}"
        if size < _LEAST_DISK:
            fix = "tuner cache (what to prune), or another folder: --cache FOLDER, TMPDIR=FOLDER"
            yield Finding(
                "disk", "wrong", f"{said}: a search needs {_LEAST_DISK / _GIB:g} GiB at least.", fix
            )
        else:
            yield Finding("disk", "ok" if size >= _FAIR_DISK else "note", said)


def check_ports(connect_port: int = 0, ui_port: int = UI_PORT) -> Iterator[Finding]:
    """Whether this machine lets a process listen to itself, at the ports that are asked for."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        yield Finding(
            "ports",
            "wrong",
            f"No port of 127.0.0.1 can be opened ({error.strerror}), and Spark needs some.",
        )
        return
    if connect_port and not _is_free(connect_port):
        said = f"Port {connect_port}, for Spark Connect, is in use."
        yield Finding("ports", "wrong", said, "leave out --connect-port: a free one is taken")
    elif _is_free(ui_port):
        yield Finding(
            "ports", "ok", f"ports of 127.0.0.1 can be opened; {ui_port}, for MLflow's UI, is free"
        )
    else:
        said = (
            f"Port {ui_port}, where make ui opens MLflow's UI, is in use, perhaps by one that runs already."
        )
        yield Finding("ports", "note", said, f"make ui PORT={ui_port + 1}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def check_proxies(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Proxies that are set, and whether they take connections; this machine itself is reached past them."""
    found = {
        name: value for name, value in sorted(environment.items()) if name.lower() in _PROXIES and value
    }
    if not found:
        yield Finding("proxies", "ok", "none is set")
    for name, value in found.items():
        said = f"{name} is {without_credentials(value)}: what is elsewhere is reached through it"
        if _takes_connections(value):
            yield Finding("proxies", "note", said)
        else:
            yield Finding("proxies", "note", f"{said}, and it does not answer.", f"unset {name}")


def _takes_connections(uri: str) -> bool:
    try:
        place = urlsplit(uri if "://" in uri else f"http://{uri}")
        port = place.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(place.scheme, 80)
        with socket.create_connection((place.hostname or "", port), _PROXY_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def check_variables(environment: Mapping[str, str], warnings: list[str]) -> Iterator[Finding]:
    """Variables that decide something about a search, and what Spark's start says of others.

    Parameters
    ----------
    environment
        As it was before Spark's start set it right.
    warnings
        What that said.
    """
    said = False
    for name, decides in _VARIABLES.items():
        if environment.get(name):
            said = True
            value = without_credentials(environment[name])
            yield Finding("variables", "note", f"{name} is {value}: it decides {decides}.")
    for name, costs in _COSTLY.items():
        if environment.get(name):
            said = True
            yield Finding("variables", "note", f"{name} is set: {costs}.", f"unset {name}")
    for warning in warnings:
        said = True
        yield Finding("variables", "note", warning)
    if not said:
        yield Finding("variables", "ok", "none is set that changes what a search does")
