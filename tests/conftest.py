"""What the tests share: one driver session, and the real data where it lies beside the project."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from tuner.sessions import DriverSession, driver_session

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the real images and weights are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def driver() -> Iterator[DriverSession]:
    """The session that a search has; one for all tests, for a process holds one at a time."""
    with driver_session("tuner-tests", parallelism=2) as session:
        yield session


@pytest.fixture(scope="session")
def spark(driver: DriverSession) -> SparkSession:
    return driver.spark
