"""One case by itself: `python -m benchmarks.NAME [--full] [--json FILE]`.

The law: a case takes a size and gives its tables, one or several; who runs it, alone or among all,
prints them, and writes them as JSON where that is asked for. Clients run on uvloop: what they take,
on a machine of few cores, is taken from what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.report import Table, document
from benchmarks.rig import Size

Case = Callable[[Size], Coroutine[Any, Any, Table | list[Table]]]


def main(run: Case) -> None:
    """The case that was started from the command line: measure, and tell what was found."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    options = parser.parse_args()
    tables = tables_of(run, size_of(options))
    for table in tables:
        print(f"{table}\n")
    write(tables, options)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those that every case has."""
    parser.add_argument("--full", action="store_true", help="longer runs, steadier figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all tables there too")


def size_of(options: argparse.Namespace) -> Size:
    """What the flag says."""
    return Size.FULL if options.full else Size.QUICK


def write(tables: Sequence[Table], options: argparse.Namespace) -> None:
    """As JSON, if a file was named."""
    if options.json is not None:
        options.json.write_text(document(tables) + "\n")


def tables_of(run: Case, size: Size) -> list[Table]:
    """Run a case. Ended from outside, it ends its processes first."""

    async def told() -> Table | list[Table]:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run(size)

    found = uvloop.run(told())
    return found if isinstance(found, list) else [found]
