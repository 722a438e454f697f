"""One case by itself: `python -m benchmarks.NAME [--full]`.

The law: a case takes a size and gives its tables, one or several; who runs it, alone or among all,
prints them. Clients run on uvloop: what they take, on a machine of few cores, is taken from what is
measured.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from benchmarks.report import Table
from benchmarks.rig import Size

Case = Callable[[Size], Coroutine[Any, Any, Table | list[Table]]]


def main(run: Case) -> None:
    """The case that was started from the command line: measure, and print what was found."""
    parser = argparse.ArgumentParser()
    add_size(parser)
    for table in tables_of(run, size_of(parser.parse_args())):
        print(f"{table}\n")


def add_size(parser: argparse.ArgumentParser) -> None:
    """The flag that all have."""
    parser.add_argument("--full", action="store_true", help="longer runs, steadier figures")


def size_of(options: argparse.Namespace) -> Size:
    """What the flag says."""
    return Size.FULL if options.full else Size.QUICK


def tables_of(run: Case, size: Size) -> list[Table]:
    """Run a case. Ended from outside, it ends its processes first."""

    async def told() -> Table | list[Table]:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run(size)

    found = uvloop.run(told())
    return found if isinstance(found, list) else [found]
