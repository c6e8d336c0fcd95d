"""`python -m tuner`, and the command `tuner`."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command line; until it is imported, which takes a second, a signal ends it at once."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda signum, _: os._exit(128 + signum))
    from tuner.cli.main import main

    main()


if __name__ == "__main__":
    main()
