import os
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tuner.base.machine import machine_cores, memory_mib, reach_this_machine_directly


def test_the_cores_are_those_that_this_process_may_use() -> None:
    """A container's quota is read by joblib, whose own test it is."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= machine_cores() <= len(allowed)


def machine_mib() -> int:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemTotal"].split()[0]) // 1024


def test_the_memory_is_the_machine_s_where_nothing_limits_it(tmp_path: Path) -> None:
    assert memory_mib(tmp_path, tmp_path / "none") == machine_mib()
    assert 1 <= memory_mib() <= machine_mib()


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "268435456"}, 256),
        ("0::/\n", {"memory.max": "max"}, None),
        ("0::/a/b\n", {"a/memory.max": "104857600", "a/b/memory.max": "268435456"}, 100),
        ("0::/host/path/of/a/container\n", {"memory.max": "268435456"}, 256),
        ("0::/../other\n", {"memory.max": "268435456"}, 256),
        ("4:memory:/docker/12ab\n0::/\n", {"memory/memory.limit_in_bytes": "268435456"}, 256),
        ("4:cpu,memory:/a\n", {"memory/a/memory.limit_in_bytes": "268435456"}, 256),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, None),  # none, in v1
        ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "268435456"}, None),
        ("0::/a:b\n", {"a:b/memory.max": "268435456"}, 256),
    ],
)
def test_the_memory_is_a_container_s(
    tmp_path: Path, membership: str, limits: dict[str, str], expected: int | None
) -> None:
    for name, value in limits.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "membership").write_text(membership)
    assert memory_mib(tmp_path, tmp_path / "membership") == (expected or machine_mib())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes control groups")
def test_a_real_group_s_limit_counts(tmp_path: Path) -> None:
    groups = Path("/sys/fs/cgroup/memory")
    if not groups.is_dir():
        pytest.skip("this machine has no control groups of version 1")
    group = groups / "tuner-test"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"this machine makes no control group: {error}")
    try:
        (group / "memory.limit_in_bytes").write_text(str(300 * 2**20))
        (tmp_path / "membership").write_text("4:memory:/tuner-test\n")
        assert memory_mib(membership=tmp_path / "membership") == 300
    finally:
        group.rmdir()


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("known", [{}, {"no_proxy": "corp.example"}, {"NO_PROXY": " ,10.0.0.0/8"}])
def test_a_proxy_is_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, str]
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{server.server_port}", timeout=10)
        reach_this_machine_directly()
        for host in ("127.0.0.1", "localhost"):
            assert requests.get(f"http://{host}:{server.server_port}", timeout=10).status_code == 200
            with urllib.request.urlopen(f"http://{host}:{server.server_port}", timeout=10) as answer:
                assert answer.status == 200
        server.shutdown()
    for name, value in known.items():
        assert os.environ[name].startswith(value.strip(" ,"))
