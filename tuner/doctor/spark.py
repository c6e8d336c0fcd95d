"""Java, Spark and Spark Connect: started as a search starts them, and asked to do a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pyspark import __version__ as spark_version

from tuner.base.errors import SessionError
from tuner.checks.cluster import check_workers, needed_packages
from tuner.checks.worker import WorkerChecks
from tuner.doctor.findings import Finding, examined
from tuner.experiment.schema import Experiment
from tuner.extraction.place import CachePlace
from tuner.searches.opening import fitted_on_spark
from tuner.spark.jvm import choose_java, java_program, java_release, worker_reason
from tuner.spark.launch import SparkLaunch
from tuner.spark.sessions import DriverSession, launched_session
from tuner.spark.settings import is_local

JAVA_HELP = "apt-get install default-jre-headless (Debian, Ubuntu; as root), or export JAVA_HOME=FOLDER"
CONNECT_HELP = "pip install 'pyspark[connect]', or tuner search --fit worker, which needs no Connect"


def check_java() -> Iterator[Finding]:
    """The Java that Spark starts with.

    Raises
    ------
    SessionError
        There is none, or it is too old.
    """
    choose_java()
    java = java_program()
    said = (
        [line for line in java_release(java).splitlines() if line.startswith("JAVA_VERSION=")]
        if java
        else []
    )
    number = said[0].partition("=")[2].strip('"') if said else "of a version that its Spark's start tells"
    yield Finding("Java", "ok", f"{number}, {java}")


@dataclass(frozen=True)
class SparkTrial:
    """Spark as it starts, and what is to be tried with it.

    Attributes
    ----------
    experiment
        Whose cache and images a cluster's workers must see.
    launch
        Spark's start.
    """

    experiment: Experiment
    launch: SparkLaunch

    def findings(self) -> Iterator[Finding]:
        """Wait for Spark, let a worker look at itself, and open the endpoint; stop Spark at the end.

        Raises
        ------
        SessionError
            As a search would.
        """
        with launched_session(self.launch) as session:
            master = session.spark.sparkContext.master
            yield Finding(
                "Spark", "ok", f"{spark_version} starts with master {master}: {session.slots} slots"
            )
            yield from examined("workers", lambda: self._ask_workers(session))
            for finding in examined("Spark Connect", lambda: self._connect(session), CONNECT_HELP):
                yield weighed(finding, self.experiment)
            place = CachePlace(self.experiment.cache)
            if place.uri is not None:
                yield from examined("cache", lambda: _reach(place, session))

    def _ask_workers(self, session: DriverSession) -> Iterator[Finding]:
        if not is_local(session.spark.sparkContext):
            place = CachePlace(self.experiment.cache)
            place.connect(session.spark)
            seen = place.seen_by_workers(session.spark)
            hosts = check_workers(session, cache=seen, images=self.experiment.images)
            yield Finding(
                "workers", "ok", f"{', '.join(hosts)}: Python, packages and folders are as a search needs"
            )
            return
        _ask_one(session, WorkerChecks(packages=needed_packages()))
        yield Finding(
            "workers",
            "ok",
            f"a task ran in a Python of its own, which has {len(needed_packages())} packages",
        )

    def _connect(self, session: DriverSession) -> Iterator[Finding]:
        endpoint = session.endpoint
        _ask_one(
            session, WorkerChecks(packages=(), endpoint=(endpoint.host, endpoint.port, endpoint.token))
        )
        yield Finding("Spark Connect", "ok", f"{endpoint.address} answers a worker, and keeps to its token")


def weighed(finding: Finding, experiment: Experiment) -> Finding:
    """A finding on Spark Connect: what is wrong there is a note, unless trials are to fit on Spark."""
    rows = [choice.row for choice in experiment.search.choices]
    if finding.state != "wrong" or fitted_on_spark(rows, experiment.search.fit, 0):
        return finding
    said = f"{finding.said} Only trials that fit on Spark need it: those of more than 2 GiB of features."
    return replace(finding, state="note", said=said)


def _ask_one(session: DriverSession, checks: WorkerChecks) -> None:
    """Let a worker look; what it finds is raised here."""
    try:
        answers = session.spark.sparkContext.parallelize(range(1), 1).mapPartitions(checks).collect()
    except Exception as error:  # py4j's own: Spark says why in its text
        raise SessionError(f"Spark starts, but its worker does not: {worker_reason(error)}.") from error
    for _, found in answers:
        if found is not None:
            raise found


def _reach(place: CachePlace, session: DriverSession) -> Iterator[Finding]:
    place.connect(session.spark)
    yield Finding("cache", "ok", f"{place.uri} can be reached and written")
