"""A PostgreSQL of its own for a test, which can be stopped and started again."""

import importlib.util
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.searches import free_port

_USER = "postgres"  # Debian's; the programs refuse to run as root


def _programs() -> Path | None:
    """Where initdb and pg_ctl are: in PATH, or where Debian has them."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return places[-1] if places and (places[-1] / "pg_ctl").exists() else None


class PostgresServer:
    """A PostgreSQL on loopback, with MLflow's tables to be."""

    def __init__(self, folder: Path) -> None:
        programs = _programs()
        drivers = [name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)]
        if programs is None or not drivers:
            pytest.skip("needs PostgreSQL's programs (apt-get install postgresql) and psycopg2-binary")
        self.programs, self.port = programs, free_port()
        self.folder = folder / "postgres"
        self.uri = f"postgresql+{drivers[0]}://tuner:secret@127.0.0.1:{self.port}/postgres"
        self.folder.mkdir()
        if os.geteuid() == 0:
            account = pwd.getpwnam(_USER)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            for place in [folder, *folder.parents]:  # pytest's folders are for their owner alone
                if place.owner() == "root" and place != Path("/") and not place.stat().st_mode & 0o001:
                    place.chmod(place.stat().st_mode | 0o001)
        self._run("initdb", "-D", self.folder, "-U", "tuner", "-A", "trust", "-E", "UTF8", "--no-sync")

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        command = [str(self.programs / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command = ["runuser", "-u", _USER, "--", *command]
        subprocess.run(command, check=check, stdout=subprocess.DEVNULL, cwd="/", timeout=120)

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -F"
        log = self.folder / "server.log"
        self._run("pg_ctl", "-D", self.folder, "-w", "-t", "100", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a crash would, with whatever it is at; it may be stopped already."""
        self._run("pg_ctl", "-D", self.folder, "-m", "immediate", "-w", "stop", check=False)
