import os
import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

import pyspark
import pytest

from tuner.base.errors import SessionError
from tuner.base.wording import VERBOSE
from tuner.spark.jvm import (
    JvmOutput,
    can_hold_files,
    is_notice,
    java_program,
    java_reason,
    prepare_environment,
    said_last,
    worker_reason,
)

OWN_SPARK = str(Path(pyspark.__file__).parent)
JAVA = str(java_program())


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Variables to change; afterwards all is as it was, whatever was set beside them."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(("SPARK_", "PYSPARK_")) or name in ("JAVA_HOME", "LC_ALL"):
            monkeypatch.delenv(name)
    yield monkeypatch
    monkeypatch.undo()
    os.environ.clear()
    os.environ.update(before)


def fake_java(home: Path, release: str | None) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text("#!/bin/sh\n")
    (home / "bin" / "java").chmod(0o755)
    if release is not None:
        (home / "release").write_text(release)
    return home


# The environment


LEFT = {
    "PYSPARK_PYTHON": "/nowhere/python",
    "PYSPARK_DRIVER_PYTHON": "jupyter",
    "PYSPARK_DRIVER_PYTHON_OPTS": "notebook",
    "PYSPARK_SUBMIT_ARGS": "--master yarn",
    "PYSPARK_GATEWAY_PORT": "1",
    "PYSPARK_GATEWAY_SECRET": "x",
    "SPARK_REMOTE": "sc://nowhere",
    "SPARK_API_MODE": "connect",
    "SPARK_CONNECT_MODE_ENABLED": "1",
    "SPARK_CONNECT_AUTHENTICATE_TOKEN": "x",
    "SPARK_LOCAL_IP": "10.1.2.3",
    "SPARK_LOCAL_HOSTNAME": "nowhere",
    "SPARK_LOCAL_DIRS": "/proc/nowhere",
    "SPARK_MASTER_HOST": "nowhere",
    "SPARK_DIST_CLASSPATH": "/nowhere/*",
    "SPARK_SUBMIT_OPTS": "-Dx=y",
    "SPARK_TESTING": "1",
}


def test_on_this_machine_nothing_counts_that_is_set_for_another_spark(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in LEFT.items():
        environment.setenv(name, value)
    prepare_environment(local=True)
    ours = {"PYSPARK_PYTHON", "SPARK_LOCAL_IP", "SPARK_HOME", "SPARK_ENV_LOADED"}
    assert {name for name in os.environ if name.startswith(("SPARK_", "PYSPARK_"))} == ours
    assert os.environ["PYSPARK_PYTHON"] == sys.executable
    assert os.environ["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert os.environ["SPARK_HOME"] == OWN_SPARK
    (said,) = caplog.messages
    assert said == f"Spark is started without {', '.join(sorted(LEFT))}, which are set for another Spark."
    caplog.clear()
    prepare_environment(local=True)  # for a second session
    assert caplog.messages == []


def test_what_counts_on_this_machine_stays(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = {
        "SPARK_CONF_DIR": str(tmp_path),
        "SPARK_DRIVER_MEMORY": "3g",
        "SPARK_LOCAL_DIRS": f"/proc/nowhere,{tmp_path}/made later",
    }
    for name, value in kept.items():
        environment.setenv(name, value)
    prepare_environment(local=True)
    assert {name: os.environ[name] for name in kept} == kept


def test_on_a_cluster_its_variables_stay_but_those_of_another_kind_of_session(
    environment: pytest.MonkeyPatch,
) -> None:
    for name, value in LEFT.items():
        environment.setenv(name, value)
    prepare_environment(local=False)
    kept = {"PYSPARK_PYTHON", "PYSPARK_SUBMIT_ARGS", "SPARK_LOCAL_IP", "SPARK_DIST_CLASSPATH"}
    assert {name: os.environ.get(name) for name in kept} == {name: LEFT[name] for name in kept}
    for name in ("SPARK_REMOTE", "SPARK_API_MODE", "SPARK_CONNECT_MODE_ENABLED", "PYSPARK_DRIVER_PYTHON"):
        assert name not in os.environ


@pytest.mark.parametrize(
    ("locale", "wanted"), [("C", "C.UTF-8"), ("POSIX", "C.UTF-8"), ("de_DE.UTF-8", "de_DE.UTF-8")]
)
def test_a_jvm_on_this_machine_reads_any_name_of_a_file(
    environment: pytest.MonkeyPatch, locale: str, wanted: str
) -> None:
    environment.setenv("LC_ALL", locale)
    prepare_environment(local=True)
    assert os.environ["LC_ALL"] == wanted


def spark_home(folder: Path, number: str) -> Path:
    (folder / "jars").mkdir(parents=True)
    (folder / "jars" / f"spark-core_2.13-{number}.jar").touch()
    return folder


@pytest.mark.parametrize("local", [True, False])
def test_a_spark_of_pyspark_s_version_may_be_elsewhere(
    environment: pytest.MonkeyPatch, tmp_path: Path, local: bool
) -> None:
    home = spark_home(tmp_path / "my spark", version("pyspark"))
    environment.setenv("SPARK_HOME", str(home))
    prepare_environment(local=local)
    assert os.environ["SPARK_HOME"] == str(home)


def test_a_spark_of_another_version_is_passed_over_here_and_refused_on_a_cluster(
    environment: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = str(spark_home(tmp_path, "3.3.1"))
    environment.setenv("SPARK_HOME", home)
    prepare_environment(local=True)
    assert os.environ["SPARK_HOME"] == OWN_SPARK
    (said,) = caplog.messages
    assert said.startswith(
        f"SPARK_HOME is {home}, where there is no Spark {version('pyspark')}: pyspark's own "
    )
    environment.setenv("SPARK_HOME", home)
    with pytest.raises(
        SessionError, match=r"SPARK_HOME is .*, with spark-core_2\.13-3\.3\.1, and .*: unset"
    ):
        prepare_environment(local=False)


def test_the_java_of_java_home_counts(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("JAVA_HOME", str(fake_java(tmp_path / "my java", 'JAVA_VERSION="21.0.2"\n')))
    prepare_environment(local=True)
    assert java_program() == tmp_path / "my java" / "bin" / "java"


@pytest.mark.parametrize("home", [JAVA, "/nowhere", "/etc"])
def test_a_java_home_without_a_java_is_passed_over(
    environment: pytest.MonkeyPatch, home: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("JAVA_HOME", home)
    prepare_environment(local=True)
    assert "JAVA_HOME" not in os.environ
    assert caplog.messages == [
        f"JAVA_HOME is {home}, where there is no bin/java: the Java in PATH is taken, {JAVA}."
    ]


@pytest.mark.parametrize(
    ("release", "number"), [('JAVA_VERSION="1.8.0_392"', 8), ('X="1"\nJAVA_VERSION="11.0.2"\n', 11)]
)
def test_an_old_java_is_one_sentence(
    environment: pytest.MonkeyPatch, tmp_path: Path, release: str, number: int
) -> None:
    environment.setenv("JAVA_HOME", str(fake_java(tmp_path, release)))
    with pytest.raises(
        SessionError, match=rf"the Java of JAVA_HOME, {tmp_path}/bin/java, is {number}: install"
    ):
        prepare_environment(local=True)
    environment.delenv("JAVA_HOME")
    environment.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SessionError, match=rf"the Java in PATH, .* is {number}: install"):
        prepare_environment(local=True)


def test_no_java_is_one_sentence(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("JAVA_HOME", str(tmp_path))
    environment.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SessionError, match=r"^Spark needs Java 17 or newer and none was found: install a JRE"
    ):
        prepare_environment(local=True)


def test_a_folder_that_can_hold_files_is_there_or_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert can_hold_files(tmp_path)
    assert can_hold_files(tmp_path / "a" / "b")
    assert not can_hold_files(tmp_path / "file" / "b")
    assert not can_hold_files(Path("/proc/nowhere"))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


# What it says


OF_PY4J = """An error occurred while calling o1.count.
: org.apache.spark.SparkException: Job aborted
\tat org.apache.spark.Here(There.scala:1)
"""
CAUSES = "Caused by: java.io.IOException: first\n\tat x\nCaused by: java.net.BindException: last\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (OF_PY4J, "org.apache.spark.SparkException: Job aborted"),
        (OF_PY4J + CAUSES, "java.net.BindException: last"),
        ("  no Java at all\nmore", "no Java at all"),
    ],
)
def test_the_jvm_s_last_cause_is_the_reason(text: str, reason: str) -> None:
    assert java_reason(RuntimeError(text)) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            OF_PY4J
            + 'Caused by: java.io.IOException: Cannot run program "/x/python": error=2, No such file\n',
            'Cannot run program "/x/python": error=2, No such file',
        ),
        (OF_PY4J + "ModuleNotFoundError: No module named 'tuner'\n\tat x", "No module named 'tuner'"),
        (
            OF_PY4J + "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)\n"
            "Caused by: java.io.EOFException\n",
            "Python worker exited unexpectedly (killed, perhaps, for want of memory: lower parallelism)",
        ),
        (OF_PY4J + CAUSES, "java.net.BindException: last"),
    ],
)
def test_what_kept_a_worker_from_its_task_is_said(text: str, reason: str) -> None:
    assert worker_reason(text) == reason


ENDED = """Error: Could not create the Java Virtual Machine.
Error: A fatal exception has occurred. Program will exit.
/x/bin/spark-class: line 97: CMD: bad array subscript"""


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (f"Picked up _JAVA_OPTIONS: -Xq\nUnrecognized option: -Xq\n{ENDED}", "Unrecognized option: -Xq"),
        ("Error occurred during initialization of VM\nToo small maximum heap\n", "Too small maximum heap"),
        (
            f"Invalid maximum heap size: -Xmx1\nIt is too large.\n{ENDED}",
            "Invalid maximum heap size: -Xmx1; It is too large.",
        ),
        ("/x/spark-class: line 71: /usr/bin/java/bin/java: Not a directory", None),
        ('WARNING: modules\nException in thread "main" a.b.C: no\n\tat a.b\n', "a.b.C: no"),
        (
            'Exception in thread "main" a.b.C: no\n\tat a.b\nCaused by: d.E: so\n\tat d\n\t... 3 more\n',
            "d.E: so",
        ),
        ("bash: warning: setlocale: LC_ALL: cannot change locale (xx)\nno space left", "no space left"),
        ("WARNING: modules\n\n", ""),
    ],
)
def test_what_a_jvm_that_ended_said_last_is_the_reason(output: str, reason: str | None) -> None:
    assert said_last(output.splitlines()) == (output if reason is None else reason)


# A real start that fails


def start(tmp_path: Path, **environment: str) -> str:
    """What a start says: all that it writes."""
    script = """
        from tuner.base.errors import SessionError
        from tuner.spark.launch import launch_spark
        try:
            launch_spark("fails", 1, master="local[2]").wait()
        except SessionError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        cwd=tmp_path,
    )
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("environment", "defaults", "reason", "place"),
    [
        (
            {"JAVA_TOOL_OPTIONS": "-XX:Nonsense=1"},
            "",
            "Unrecognized VM option 'Nonsense=1'",
            "JAVA_TOOL_OPTIONS",
        ),
        ({"_JAVA_OPTIONS": "-Xmx1k"}, "", "Too small maximum heap", "_JAVA_OPTIONS"),
        ({"SPARK_DRIVER_MEMORY": "999999g"}, "", "Could not reserve enough space", "SPARK_DRIVER_MEMORY"),
        (
            {},
            "spark.driver.extraJavaOptions -XX:+UseG1GC -XX:+UseSerialGC\n",
            "Multiple garbage collectors selected",
            "{folder}/spark-defaults.conf",
        ),
    ],
)
def test_a_jvm_that_does_not_start_says_why_in_one_sentence(
    tmp_path: Path, environment: dict[str, str], defaults: str, reason: str, place: str
) -> None:
    (tmp_path / "spark-defaults.conf").write_text(defaults)
    said = start(tmp_path, SPARK_CONF_DIR=str(tmp_path), **environment)
    assert len(said.strip().splitlines()) == 1, said
    assert said.startswith(f"Spark could not be started with master local[2]: {reason}")
    assert said.rstrip().endswith(f" It may come from {place.format(folder=tmp_path)}: look there.")


# What it writes


NOTICES = [
    "WARNING: Using incubator modules: jdk.incubator.vector",
    "Picked up JAVA_TOOL_OPTIONS: -Dx=y",
    "Using Spark's default log4j profile: org/apache/spark/log4j2-defaults.properties",
    'Setting default log level to "WARN".',
    "To adjust logging level use sc.setLogLevel(newLevel).",
    "netlib-blas: JNI_OnLoad: dlopen(libblas.so.3) failed: libblas.so.3: cannot open shared object file",
    "I0000 00:00:1700000000.123456   12345 fork_posix.cc:71] Other threads are currently calling into gRPC",
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "2026-11-27 06:52:01.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.",
    "To enable the following instructions: AVX2, in other operations, rebuild TensorFlow with the flags.",
]
WORDS = [
    "12:00:01 ERROR Executor: Exception in task 0.0",
    "java.lang.OutOfMemoryError: Java heap space",
    "WARNING: A restricted method in java.lang.System has been called",
    "E0000 00:00:1700000000.123456   12345 server.cc:1] No port could be bound",
    "2026-11-27 06:52:01.123456: W tensorflow/core/framework/cpu_allocator_impl.cc:83] Allocation exceeds",
    "2026-11-27 06:52:01.123456: F tensorflow/core/platform/cpu_feature_guard.cc:19] not for this CPU",
    "Traceback (most recent call last):",
    "",
]


@pytest.mark.parametrize("line", NOTICES)
def test_what_libraries_write_as_they_start_is_known(line: str) -> None:
    assert is_notice(line)


@pytest.mark.parametrize("line", WORDS)
def test_what_went_wrong_is_none_of_it(line: str) -> None:
    assert not is_notice(line)


@pytest.mark.parametrize("verbose", [False, True])
def test_notices_are_shown_with_verbose_alone_and_all_else_always(
    verbose: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VERBOSE, raising=False)
    if verbose:
        monkeypatch.setenv(VERBOSE, "1")
    reading, writing = os.pipe()
    output = JvmOutput(reading)
    output.start()
    mixed = [line for pair in zip(NOTICES, WORDS, strict=False) for line in pair]
    half = len(mixed) // 2
    os.write(writing, "\n".join(mixed[:half]).encode() + b"\n")
    while len(output.lines) < half:
        pass
    assert capfd.readouterr().err == ""
    output.release()
    os.write(writing, "\n".join([*mixed[half:], "the last, without its end"]).encode())
    os.close(writing)
    output.join(10)
    shown = [*mixed, "the last, without its end"] if verbose else [*WORDS, "the last, without its end"]
    assert capfd.readouterr().err.split("\n") == shown
