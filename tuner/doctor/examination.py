"""The whole examination, in the order in which one thing needs another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from tuner.doctor import machine, networks, spark, stores
from tuner.doctor.findings import Finding, examined, listening
from tuner.experiment.schema import Experiment
from tuner.spark.launch import launch_spark


def examine(
    experiment: Experiment, *, master: str | None = None, connect_port: int = 0, quick: bool = False
) -> Iterator[Finding]:
    """Look at all that a search needs, as a search does, and leave nothing behind.

    Parameters
    ----------
    experiment
        The search that is to run.
    master
        A Spark master URL; None: this machine.
    connect_port
        The port of the Spark Connect endpoint; 0: a free one.
    quick
        Leave out what takes seconds: Spark and TensorFlow are not started.

    Yields
    ------
    Finding
        As soon as it is known; none is `wrong` where the search would run.
    """
    before = dict(os.environ)
    yield from examined("Python", machine.check_python)
    yield from examined("memory", machine.check_memory)
    with listening() as warnings:
        java = list(examined("Java", spark.check_java, spark.JAVA_HELP))
        has_java = all(finding.state != "wrong" for finding in java)
        # Its JVM starts while the rest is looked at.
        launch = (
            launch_spark("tuner doctor", experiment.search.parallelism, master=master, port=connect_port)
            if has_java and not quick
            else None
        )
    yield from java
    yield from examined("variables", partial(machine.check_variables, before, warnings))
    yield from examined("proxies", partial(machine.check_proxies, before))
    yield from examined("ports", partial(machine.check_ports, connect_port))
    yield from examined("MLflow store", partial(stores.check_store, experiment), stores.HERE)
    yield from examined("MLflow registry", partial(stores.check_registry, experiment), stores.HERE)
    yield from examined("cache", partial(stores.check_cache, experiment), "tuner search --cache FOLDER")
    yield from examined("images", partial(stores.check_images, experiment))
    yield from examined("disk", lambda: machine.check_disks(stores.written_folders(experiment)))
    yield from examined("weights", partial(networks.check_weights, experiment), networks.LITE_PACKAGES)
    if quick:
        yield Finding("TensorFlow", "left out", "--quick starts neither TensorFlow nor Spark")
        return
    yield from examined("TensorFlow", networks.check_tensorflow, "pip install --force-reinstall tensorflow")
    if launch is None:
        for about in ("Spark", "Spark Connect"):
            yield Finding(about, "left out", "without Java it cannot start")
    else:
        yield from examined("Spark", spark.SparkTrial(experiment, launch).findings)
