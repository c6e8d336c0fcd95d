import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuner.spark import class_archive
from tuner.spark.class_archive import archive_options
from tuner.spark.settings import settings

JAVA_OPTIONS = "spark.driver.extraJavaOptions"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment in which no JVM was started yet."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    for name in (*class_archive._CLASS_PATH_VARIABLES, "SPARK_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_archive_is_written_once_and_read_then(environment: Path) -> None:
    (written,) = [option for option in archive_options().split() if "Archive" in option]
    assert written.startswith(f"-XX:ArchiveClassesAtExit={environment}/var/tuner/spark-")
    Path(written.partition("=")[2]).touch()
    assert written.replace("ArchiveClassesAtExit", "SharedArchiveFile") in archive_options()


def test_a_local_search_uses_it_and_a_cluster_does_not() -> None:
    assert archive_options() in settings("local[2]")[JAVA_OPTIONS]
    assert "Archive" not in settings("spark://127.0.0.1:7077")[JAVA_OPTIONS]


def test_another_java_has_another_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    before = archive_options()
    monkeypatch.setattr(class_archive, "_java_release", lambda: "another")
    assert archive_options() not in ("", before)


@pytest.mark.parametrize("variable", [*class_archive._CLASS_PATH_VARIABLES, "SPARK_CONF_DIR"])
def test_there_is_none_with_a_class_path_of_the_users_own(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "spark-defaults.conf").touch()
    monkeypatch.setenv(variable, str(conf))
    assert archive_options() == ""


def test_there_is_none_outside_a_virtual_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert archive_options() == ""


def test_there_is_none_where_none_can_be_written(environment: Path) -> None:
    (environment / "var").write_text("a file where the folder should be")
    assert archive_options() == ""


def test_there_is_none_for_a_java_that_may_not_know_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert archive_options() == ""
    (tmp_path / "release").write_text('JVM_VARIANT="Openj9"\n')
    assert archive_options() == ""
    (tmp_path / "release").write_text('JVM_VARIANT="Hotspot"\n')
    assert archive_options() != ""


@pytest.mark.long
def test_a_jvm_writes_it_at_its_end_and_the_next_one_maps_it(environment: Path) -> None:
    """In fresh processes, whose standard output stays clean; with the real Java, whatever it is."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        f"sys.prefix = {str(environment)!r}\n"
        "from tuner.spark.sessions import driver_session\n"
        "with driver_session('archive', 1) as session:\n"
        "    jvm = session.spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()\n"
        "    maps = Path(f'/proc/{jvm}/maps').read_text()\n"
        "    print(session.spark.range(5).count(), '/tuner/spark-' in maps)\n"
    )

    def output() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not show what a process maps")
    first = output()  # until the JVM has closed it, too
    deadline = time.monotonic() + 60
    while not list(environment.rglob("*.jsa")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)
    assert (first.strip(), output().strip()) == ("5 False", "5 True")
