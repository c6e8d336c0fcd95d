"""Whether an MLflow store answers, asked within seconds; and a database that is away, waited for."""

from __future__ import annotations

import logging
import re
import time
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy import Dialect, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from tuner.base.wording import first_line

_URI = re.compile(r"([A-Za-z][\w+.-]*)://(?!/)([^\s'\"]*)")
_SECRET_OPTION = re.compile(
    r"(?i)([?&;](?:\w*password|passwd|pwd|\w*token|\w*secret|odbc_connect)=)[^&;\s'\"]*"
)
_CHECK_SECONDS = 10
_WAIT_SECONDS = 60  # as long as a request to a server is repeated
_PAUSE_SECONDS = 0.5
_DATABASES = ("postgresql", "mysql", "mssql")
_LIBPQ = {  # a peer that is gone without a word is noticed within a minute, not after hours
    "connect_timeout": _CHECK_SECONDS,
    "keepalives_idle": 15,
    "keepalives_interval": 15,
    "keepalives_count": 3,
}
_TIMEOUTS: dict[str, dict[str, int]] = {
    "psycopg2": _LIBPQ,
    "psycopg": _LIBPQ,
    "pymysql": {"connect_timeout": _CHECK_SECONDS},
    "mysqldb": {"connect_timeout": _CHECK_SECONDS},
}

# Why a request got no answer; before it, requests names the address three times over.
_CAUSE = re.compile(r"\[Errno -?\d+\] [^'\")]+|timed out|certificate verify failed[^'\")]*")

REFUSALS = (MlflowException, SQLAlchemyError, OSError)
"""What the clients of MLflow's stores raise where one refuses or does not answer."""


def without_credentials(text: str) -> str:
    """Mask users and passwords in URIs, for messages and logs.

    A database's password may hold any sign but an @, a `/` too (`sqlalchemy.engine.make_url`); to be sure,
    all is masked up to the last @.
    """
    return _SECRET_OPTION.sub(r"\1***", _URI.sub(_masked, text))


def _masked(uri: re.Match[str]) -> str:
    scheme, rest = uri.groups()
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    # Of a server's address, an @ behind its host is part of a path.
    plain = scheme.startswith("http") and re.fullmatch(r"[^@:]*(:\d*)?|\[[^@]*", authority)
    return uri[0] if plain or "@" not in rest else f"{scheme}://***@{rest.rpartition('@')[2]}"


def reason(error: object) -> str:
    """The first line of what went wrong, fit for a sentence."""
    line = first_line(error)
    said, pool, more = line.partition(" with exception HTTP")
    cause = _CAUSE.search(more) if pool else None
    return without_credentials(f"{said}: {cause[0]}" if cause else said)


def is_database(uri: str) -> bool:
    """Whether a store is a database with a server of its own."""
    return re.split(r"[+:]", uri, maxsplit=1)[0] in _DATABASES


def check_answers(uri: str) -> None:
    """Ask a store's server or database for an answer within seconds.

    MLflow's own patience is minutes, and a setting of the whole process. A store without a server always
    answers, and so does one that refuses: that is for those to say who ask for something.

    Raises
    ------
    ConnectionError
        There is no answer, and why.
    """
    try:
        if uri.startswith(("http:", "https:")):
            _ask_server(uri)
        elif is_database(uri):
            engine = create_engine(uri)
            dialect = engine.dialect
            arguments, options = dialect.create_connect_args(engine.url)
            dialect.connect(*arguments, **{**_timeouts(dialect), **options}).close()
    except Exception as error:  # each database has its own
        raise ConnectionError(reason(error)) from error


def _ask_server(uri: str) -> None:
    answer = http_request(  # type: ignore[no-untyped-call]
        get_default_host_creds(uri),  # type: ignore[no-untyped-call]
        "/api/2.0/mlflow/experiments/search",  # behind it is the server's own store: that counts, too
        "GET",
        params={"max_results": 1},
        max_retries=1,
        timeout=_CHECK_SECONDS,
        raise_on_status=False,
    )
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:  # or what stands before it has no answer
        raise ConnectionError(f"it answers with {answer.status_code}")


def _timeouts(dialect: Dialect) -> dict[str, Any]:
    return dict(_TIMEOUTS.get(dialect.driver, {}))


@lru_cache
def wait_for_database(uri: str) -> None:
    """Let what MLflow asks of a database wait for it about a minute, as it waits for a server.

    MLflow asks once. Its engines look whether a connection still lives before they use it, and make a new
    one where not: there is the place to wait. The minute is that of the database's absence, not of each
    attempt.
    """
    # A refusal is raised and said by tuner; MLflow would log it with a traceback before.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    engine = create_engine(uri)
    asked = engine.dialect.create_connect_args(engine.url)[1]
    wanted = {name: value for name, value in asked.items() if isinstance(value, str | int)}
    away_since: float | None = None

    @event.listens_for(Engine, "do_connect")
    def connect(dialect: Dialect, _: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        nonlocal away_since
        if not wanted.items() <= options.items():  # an engine of somebody else's
            return None
        while True:
            try:
                made = dialect.connect(*arguments, **{**_timeouts(dialect), **options})
            except dialect.loaded_dbapi.OperationalError:
                now = time.monotonic()
                away_since = away_since or now
                if now - away_since > _WAIT_SECONDS:
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                away_since = None
                return made
