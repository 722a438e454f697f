"""A server process in miniature, to be killed: it owns a data folder and what a test starts in it.

The script that a test gives runs inside a coroutine, with `folder` (a DataFolder) and `say` (one
line to the test) at hand.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[2]

FRAME = """
import asyncio, os, signal, sys
from pathlib import Path
from vision.children import Child, DataFolder, Program
from vision.models.local import LocalModel
from vision.valkey import EmbeddedValkey

def say(*words):
    print(*words, flush=True)

async def main():
    folder = DataFolder(Path(sys.argv[1]))
{body}
    await asyncio.Event().wait()

asyncio.run(main())
"""


class Owner:
    """The process; `kill` it, or leave the `with` block."""

    def __init__(self, folder: Path, script: str) -> None:
        body = "".join(f"    {line}\n" for line in script.strip().splitlines())
        self._process = subprocess.Popen(
            [sys.executable, "-c", FRAME.format(body=body), str(folder)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self) -> str:
        """The next line it said; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        """As `kill -9` does it, and wait until it is gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(") ")[2][0] not in "ZX"


def is_gone(pid: int, within: float) -> bool:
    """Whether the process ends within so many seconds."""
    deadline = time.monotonic() + within
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Supervised(Protocol):
    """What has a process that is replaced when it dies."""

    @property
    def pid(self) -> int | None: ...


async def a_new_process(of: Supervised, killed: int | None, within: float = 10.0) -> None:
    """Until the killed process is replaced. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while True:
            if of.pid not in {killed, None}:
                return
            await asyncio.sleep(0.01)
