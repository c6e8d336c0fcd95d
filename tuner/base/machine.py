"""What this machine, or the container on it, lets a process use: cores, memory, and the way to itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

UI_PORT = 5000  # where `tuner ui` serves, unless told otherwise
_THIS_MACHINE = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def machine_cores() -> int:
    """The cores that this process may use, by affinity and by the quota of its control group."""
    from joblib import cpu_count  # it imports NumPy, which not every command needs

    return int(cpu_count())


def memory_mib(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """The memory that this process may use in MiB: the machine's, or less by its control groups' limits.

    Parameters
    ----------
    cgroups, membership
        Where the system shows the groups, and which of them hold this process.

    References
    ----------
    https://docs.kernel.org/admin-guide/cgroup-v2.html (`memory.max`),
    https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (`memory.limit_in_bytes`).
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, *_memory_limits(cgroups, membership)) // 2**20


def _memory_limits(cgroups: Path, membership: Path) -> Iterator[int]:
    """The limits of all groups that hold this process, in bytes; a group inherits those above it."""
    yield 2**63
    for line in _lines(membership):
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            root, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the host's, of which only the container's own end is to be seen.
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for length in range(len(parts) + 1):
            for value in _lines(root.joinpath(*parts[:length], name)):
                if value.isdecimal():  # or max
                    yield int(value)


def reach_this_machine_directly() -> None:
    """Let HTTP clients of this process, and of those that it starts, use no proxy to reach this machine.

    A proxy is somewhere else, where this machine's own address leads nowhere or to the proxy.
    """
    for name in ("no_proxy", "NO_PROXY"):  # some libraries read the one, some the other
        known = [place.strip() for place in os.environ.get(name, "").split(",") if place.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*known, *_THIS_MACHINE]))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
