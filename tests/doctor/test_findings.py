import logging
from collections.abc import Iterator

from tuner.base.errors import SessionError
from tuner.doctor.findings import Finding, examined, listening

FOUND = Finding("a", "ok", "good")


def refused() -> Iterator[Finding]:
    yield FOUND
    raise SessionError("There is no Java: install one.")


def broken() -> Iterator[Finding]:
    yield FOUND
    raise ZeroDivisionError("division by zero\nand more")


def test_what_a_search_is_refused_with_is_a_finding_after_those_before() -> None:
    assert list(examined("Java", refused, "apt-get install java")) == [
        FOUND,
        Finding("Java", "wrong", "There is no Java: install one.", "apt-get install java"),
    ]


def test_an_examination_goes_on_whatever_a_library_does() -> None:
    assert list(examined("a", broken))[1] == Finding("a", "wrong", "ZeroDivisionError: division by zero.")


def test_warnings_are_heard_instead_of_shown() -> None:
    shown: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        with listening() as heard:
            logging.getLogger("tuner.spark.jvm").warning("SPARK_HOME is %s.", "/x")
            logging.getLogger("tuner.spark.jvm").info("no warning")
        logging.getLogger("tuner.spark.jvm").warning("after")
    finally:
        logging.getLogger().removeHandler(handler)
    assert heard == ["SPARK_HOME is /x."]
    assert shown == ["after"]
