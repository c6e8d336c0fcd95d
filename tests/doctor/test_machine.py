import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuner.doctor import machine
from tuner.doctor.findings import Finding


def states(findings: Iterator[Finding]) -> list[str]:
    return [finding.state for finding in findings]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of this machine at which somebody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_this_python_has_what_tuner_asks_for() -> None:
    (found,) = machine.check_python()
    assert found.state == "ok"


def test_packages_that_are_missing_or_of_other_versions_are_named_with_what_to_type() -> None:
    (found,) = machine.check_python(["numpy<1", "no-such-package>=2", "no-extra; extra == 'dev'", "pandas"])
    assert found.state == "wrong"
    assert "no-such-package is missing, wanted >=2" in found.said
    assert "wanted <1" in found.said
    assert "no-extra" not in found.said
    assert "pandas" not in found.said
    assert "pip install 'transfer-tuner==" in found.type


@pytest.mark.parametrize(("mib", "state"), [(1000, "wrong"), (3000, "note"), (8000, "ok")])
def test_memory_is_too_little_little_or_enough(mib: int, state: str) -> None:
    (found,) = machine.check_memory(mib)
    assert found.state == state
    assert bool(found.type) is (state != "ok")


@pytest.mark.parametrize(("free", "state"), [(2**20, "wrong"), (2**30, "note"), (2**40, "ok")])
def test_folders_of_one_disk_are_one_finding(tmp_path: Path, free: int, state: str) -> None:
    folders = {"one": tmp_path / "not" / "there", "two": tmp_path}
    temporary = Path(machine.tempfile.gettempdir())
    found = list(machine.check_disks(folders, dict.fromkeys([*folders.values(), temporary], free)))
    assert {finding.state for finding in found} == {state}
    together = next(finding for finding in found if "one" in finding.said)
    assert f"two ({tmp_path})" in together.said


def test_a_port_that_is_asked_for_and_in_use_is_wrong_and_the_ui_s_a_note(taken: int) -> None:
    (wanted,) = machine.check_ports(connect_port=taken)
    assert (wanted.state, str(taken) in wanted.said) == ("wrong", True)
    (own,) = machine.check_ports(ui_port=taken)
    assert (own.state, own.type) == ("note", f"make ui PORT={taken + 1}")


def test_a_proxy_that_does_not_answer_is_said_and_no_password_is_shown(taken: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    one, other = machine.check_proxies(
        {
            "HTTPS_PROXY": f"http://me:secret@127.0.0.1:{taken}",
            "http_proxy": f"127.0.0.1:{closed}",
            "A": "b",
        }
    )
    assert "secret" not in one.said
    assert one.type == ""
    assert "does not answer" in other.said
    assert other.type == "unset http_proxy"
    assert states(machine.check_proxies({"http_proxy": ""})) == ["ok"]
    assert "does not answer" in next(machine.check_proxies({"ALL_PROXY": "http://[nowhere"})).said


def test_variables_that_decide_something_are_named_and_what_spark_s_start_says() -> None:
    environment = {"MLFLOW_TRACKING_URI": "postgresql://me:secret@host/db", "EDITOR": "vi", "MASTER": ""}
    uri, warning = machine.check_variables(environment, ["Spark is started without SPARK_REMOTE."])
    assert "where runs and models go" in uri.said
    assert "secret" not in uri.said
    assert warning.said == "Spark is started without SPARK_REMOTE."
    assert states(machine.check_variables({"EDITOR": "vi"}, [])) == ["ok"]
