"""The driver's JVM: its Java, what of the environment reaches it, its start, and what it says that failed.

Spark reads some thirty variables, left in a profile for another version of it, another cluster or
a notebook. On this machine alone a search depends on none of them, but for those of `_KEPT`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pyspark
from py4j.java_gateway import JavaGateway
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway

from tuner.base.errors import SessionError
from tuner.base.wording import VERBOSE, first_line

OLDEST_JAVA = 17
# Each makes of the session another kind than is asked for, or names a Python for the `pyspark` shell.
_OTHER_KINDS = frozenset(
    {
        *("SPARK_REMOTE", "SPARK_API_MODE", "SPARK_LOCAL_REMOTE", "SPARK_LOCAL_CONNECT_REUSE"),
        *("SPARK_CONNECT_MODE", "SPARK_CONNECT_MODE_ENABLED", "SPARK_TESTING"),
        *("PYSPARK_DRIVER_PYTHON", "PYSPARK_DRIVER_PYTHON_OPTS", "PYSPARK_GATEWAY_PORT"),
    }
)
_KEPT = frozenset({"SPARK_CONF_DIR", "SPARK_DRIVER_MEMORY"})  # what `tuner.spark.settings` makes of them
_OWN = frozenset({"SPARK_AUTH_SOCKET_TIMEOUT", "SPARK_BUFFER_SIZE"})  # pyspark's own notes in this process
JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
_LINES = 200  # of what a JVM says, kept while it starts
_CAUSE, _THROWN = "Caused by: ", 'Exception in thread "main" '
_NOISE = re.compile(
    r"\s|.*\bwarning\b|NOTE|Picked up|SLF4J|Using Spark's default|Setting default log|To adjust logging|"
    r".*bad array subscript|"  # the shell's, where its Java said nothing that it understood
    r"Error: Could not create the Java|Error: A fatal exception|Error occurred during initialization of VM",
    re.IGNORECASE,
)
# Of the JVM, Spark's launcher, MLlib's netlib; of TensorFlow, absl and gRPC in workers, what they log as
# information. Each is known by its words: what went wrong looks otherwise, and is shown.
_NOTICE = re.compile(
    r"WARNING: Using incubator modules: |Picked up \w+: |Using Spark's default log4j profile: |"
    r"Setting default log level to |To adjust logging level use |"
    r"netlib-\w+: JNI_OnLoad: dlopen\(|"
    r"I\d{4} [\d:. ]+\d+ \S+:\d+\] |WARNING: All log messages before absl::InitializeLog\(\) is called|"
    r"\d{4}-\d\d-\d\d [\d:.]+: I (tensorflow|external)/|"
    r"To enable the following instructions: .*rebuild TensorFlow"
)

_log = logging.getLogger(__name__)


# The environment ----------------------------------------------------------------------------------


def prepare_environment(*, local: bool) -> None:
    """Set this process's variables right for the Spark that is about to start.

    It stays so: pyspark reads them at its start and later, and Spark's workers inherit them.

    Raises
    ------
    SessionError
        There is no Java that is new enough, or `SPARK_HOME` is of another version, on a cluster.
    """
    choose_java()
    _choose_spark(local=local)
    ours = {"SPARK_HOME": os.environ["SPARK_HOME"]}
    if local:
        # Workers need these packages. A host's own name need not lead to an address.
        ours |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_ENV_LOADED": "1"}
        # Trials side by side use the cores; threads of an OpenBLAS, where MLlib finds one, are in the way.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        if os.environ.get("LC_ALL") in ("C", "POSIX"):  # in which a JVM opens no é
            ours["LC_ALL"] = "C.UTF-8"
    foreign = [
        name
        for name, value in os.environ.items()
        if ours.get(name) != value and (name in _OTHER_KINDS or (local and _is_foreign(name)))
    ]
    for name in foreign:
        del os.environ[name]
    os.environ.update(ours)
    if not local:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    said = sorted(set(foreign) - _OWN)
    if said:
        _log.warning(
            "Spark is started without %s, which %s set for another Spark.",
            ", ".join(said),
            "is" if len(said) == 1 else "are",
        )


def _is_foreign(name: str) -> bool:
    """Whether it is one of Spark's variables that does not count on this machine alone."""
    if name == "SPARK_LOCAL_DIRS":
        return not any(can_hold_files(Path(place)) for place in os.environ[name].split(","))
    return name.startswith(("SPARK_", "PYSPARK_")) and name not in _KEPT


def can_hold_files(folder: Path) -> bool:
    """Whether this process may write into a folder, or make it."""
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryDirectory(dir=there):  # what rights say is not all, as in /proc
            return True
    except OSError:
        return False


def choose_java() -> None:
    """Let `JAVA_HOME` count if there is a Java, as for Spark; else the one in `PATH`."""
    home = os.environ.get("JAVA_HOME")
    if home is not None and not (home and shutil.which("java", path=f"{home}/bin")):
        del os.environ["JAVA_HOME"]
        if home and shutil.which("java"):
            _log.warning(
                "JAVA_HOME is %s, where there is no bin/java: the Java in PATH is taken, %s.",
                home,
                shutil.which("java"),
            )
    java = java_program()
    if java is None:
        raise SessionError(
            f"Spark needs Java {OLDEST_JAVA} or newer and none was found: install a JRE (Debian, Ubuntu: "
            "apt-get install default-jre-headless) or set JAVA_HOME."
        )
    found = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', java_release(java), re.MULTILINE)
    if found and int(found[1]) < OLDEST_JAVA:
        where = "of JAVA_HOME" if os.environ.get("JAVA_HOME") else "in PATH"
        raise SessionError(
            f"Spark needs Java {OLDEST_JAVA} or newer, and the Java {where}, {java}, is {found[1]}: "
            "install a newer one, or set JAVA_HOME to its folder."
        )


def java_program() -> Path | None:
    """The `java` that Spark starts; None: there is none."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    return Path(found) if found else None


def java_release(java: Path) -> str:
    """What a Java says of itself in the file `release` of its home; empty where there is none."""
    try:
        return (java.resolve().parent.parent / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _choose_spark(*, local: bool) -> None:
    """Let `SPARK_HOME` count if it is of pyspark's version; else, on this machine, pyspark's own Spark."""
    home, wanted = os.environ.get("SPARK_HOME"), version("pyspark")
    jars = list(Path(home, "jars").glob("spark-core_*.jar")) if home else []
    if any(jar.stem.endswith(f"-{wanted}") for jar in jars):
        return
    if home and not local and jars:
        raise SessionError(
            f"SPARK_HOME is {home}, with {jars[0].stem}, and the pyspark of this Python is {wanted}: unset "
            "SPARK_HOME, or install the pyspark of the cluster's version."
        )
    os.environ["SPARK_HOME"] = str(Path(pyspark.__file__).parent)
    if home and home != os.environ["SPARK_HOME"]:
        _log.warning(
            "SPARK_HOME is %s, where there is no Spark %s: pyspark's own is taken, %s.",
            home,
            wanted,
            os.environ["SPARK_HOME"],
        )


# The start ----------------------------------------------------------------------------------------


def start_jvm(conf: SparkConf) -> JavaGateway | None:
    """Start the JVM of this process, and pass on what it writes; None: there is one already.

    Raises
    ------
    SessionError
        It ended at once; the message is what it said last, and where its settings come from.
    """
    if SparkContext._gateway is not None:  # pyspark has no public way to ask
        return None
    reading, writing = os.pipe()
    output = JvmOutput(reading)
    output.start()
    try:
        gateway: JavaGateway = launch_gateway(  # type: ignore[no-untyped-call]
            conf,
            {
                **{"stdout": writing, "stderr": writing},  # where it writes errors depends on the error
                # A signal to the group, of a terminal or of `mlflow run`, would end it, and its workers,
                # in the midst of what this process does with them. It ends when its input does.
                "start_new_session": True,
            },
        )
    except PySparkRuntimeError as error:
        os.close(writing)
        writing = -1
        output.join(10)
        raise SessionError(said_last(output.lines) or first_line(error)) from error
    finally:
        if writing != -1:
            os.close(writing)
    output.release()
    return gateway


class JvmOutput(threading.Thread):
    """What a JVM and its workers write: the last lines and, once it has started, all but notices.

    Where it does not start, a sentence says it; its own pages of it are held back.
    """

    def __init__(self, reading: int) -> None:
        super().__init__(name="spark-output", daemon=True)
        self.lines: deque[str] = deque(maxlen=_LINES)
        self._reading = reading
        self._lock = threading.Lock()
        self._held: list[bytes] | None = []
        self._verbose = VERBOSE in os.environ

    def release(self) -> None:
        """Show what was held back, and from now on what comes."""
        with self._lock:
            for line in self._held or ():
                self._show(line)
            self._held = None

    def run(self) -> None:
        """Read until the JVM has closed its end."""
        rest = b""
        while chunk := os.read(self._reading, 2**16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line + b"\n")
        self._take(rest)
        os.close(self._reading)

    def _take(self, line: bytes) -> None:
        with self._lock:
            if self._held is None:
                self._show(line)
            else:
                self._held.append(line)
                self.lines.append(line.decode(errors="replace").removesuffix("\n"))

    def _show(self, line: bytes) -> None:
        if self._verbose or not is_notice(line.decode(errors="replace")):
            with suppress(OSError):
                os.write(2, line)


def is_notice(line: str) -> bool:
    """Whether a line is what libraries write as they start, whatever the machine and whatever they do."""
    return _NOTICE.match(line) is not None


# What it says -------------------------------------------------------------------------------------


def java_reason(error: object) -> str:
    """What the JVM says went wrong, of an error of py4j's or pyspark's: the last of its causes."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    causes = [line for line in lines if line.startswith(_CAUSE)]
    java = re.search(r"^: (.+)$", str(error), re.MULTILINE)  # py4j's own first line says nothing
    return causes[-1].removeprefix(_CAUSE) if causes else java[1] if java else lines[0]


def worker_reason(error: object) -> str:
    """What Spark says of a worker that could not do its task: of its Python, where it says that."""
    said = re.search(
        r'Cannot run program "[^"]+".*|No module named \S+|Python worker exited unexpectedly', str(error)
    )
    if said is None:
        return java_reason(error)
    killed = said[0].startswith("Python worker exited")
    return said[0] + (" (killed, perhaps, for want of memory: lower parallelism)" if killed else "")


def said_last(lines: Iterable[str]) -> str:
    """What a JVM that ended, or the shell that was to start it, gave as the reason; empty: nothing."""
    lines = list(lines)
    causes = [line.removeprefix(_CAUSE) for line in lines if line.startswith(_CAUSE)]
    thrown = [line.partition(_THROWN)[2] for line in lines if line.startswith(_THROWN)]
    plain = [line.strip() for line in lines if not _NOISE.match(line)]
    return causes[-1] if causes else thrown[-1] if thrown else "; ".join(filter(None, plain[-2:]))
