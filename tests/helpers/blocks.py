"""The blocks of commands in Markdown, and how a reader would run them: one after the other, in one folder.

A comment before a block says what it is: `<!-- not run: WHY -->` or, of a server, which runs until the last
block has ended, `<!-- in the background: port N -->`.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.helpers.searches import kill_tree, wait_until

_BLOCK = re.compile(
    r"(?:^<!-- (?P<said>[^\n]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
_RUN = ("sh", "python")


@dataclass(frozen=True)
class Block:
    """A block of commands, and what is said of it."""

    language: str
    text: str
    said: str

    @property
    def reason(self) -> str:
        """Why it is not run; empty: it is."""
        return self.said.removeprefix("not run: ") if self.said.startswith("not run: ") else ""

    @property
    def port(self) -> int | None:
        """Where it answers, if it is a server."""
        found = re.fullmatch(r"in the background: port (\d+)", self.said)
        return int(found[1]) if found else None


def blocks_of(text: str) -> list[Block]:
    """The blocks in the languages that can be run."""
    found = _BLOCK.finditer(text)
    return [
        Block(one["language"], one["text"], one["said"] or "") for one in found if one["language"] in _RUN
    ]


def run_blocks(blocks: list[Block], folder: Path) -> Iterator[tuple[Block, str]]:
    """Run what can be run, and give what each wrote to standard output; a block that fails ends it."""
    with ExitStack() as stack:
        for block in blocks:
            if block.reason:
                continue
            if block.port is not None:
                process = _start(block, folder, subprocess.DEVNULL)
                stack.callback(kill_tree, process)
                wait_until(partial(_answers, block.port, process), 180)
                continue
            process = _start(block, folder, subprocess.PIPE)
            stack.callback(kill_tree, process)
            out, error = process.communicate(timeout=1200)
            assert process.returncode == 0, f"{block.text}\n{out}\n{error}"
            yield block, out


def _start(block: Block, folder: Path, output: int) -> "subprocess.Popen[str]":
    command = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        [*command, block.text],
        cwd=folder,
        env=settings | {"PATH": binaries},
        stdout=output,
        stderr=output,
        text=True,
        start_new_session=True,
    )


def _answers(port: int, server: "subprocess.Popen[str]") -> bool:
    assert server.poll() is None, "the server has ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
