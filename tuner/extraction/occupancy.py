"""Who has a feature cache open, on any machine that sees its folder: many at once, or one that prunes."""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuner.base.errors import CacheError

_FILE = "in-use.lock"


def occupy(root: Path, holder: object) -> Callable[[], object]:
    """Have a cache open as long as `holder` lives, beside others; what prunes it is waited for.

    A process that ends, in whatever way, leaves it. Where the filesystem knows no such locks, nobody is
    kept from anything.

    Parameters
    ----------
    root
        The cache's folder, which is there.
    holder
        Any object that goes when the cache is not used any more.

    Returns
    -------
    Callable
        Leaves it before that.
    """
    try:
        descriptor = os.open(root / _FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return lambda: None
    leave = weakref.finalize(holder, os.close, descriptor)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return leave


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Have a cache for oneself.

    Raises
    ------
    CacheError
        A search, or something else, has it open.
    """
    try:
        descriptor = os.open(root / _FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except FileNotFoundError:  # no cache, and nobody in it
        yield
        return
    except OSError as error:
        raise CacheError(f"The feature cache {root} cannot be written: {error.strerror}.") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CacheError(
                f"The feature cache {root} is in use by a search or another command: prune it when "
                "that has ended."
            ) from None
        except OSError:  # the filesystem knows no such locks
            pass
        yield
    finally:
        os.close(descriptor)
