"""Case 4: what a scheduled node costs, in one process and over real sockets.

    python -m benchmarks.scheduler [--full]

The law: the same graphs for all, in processes that run one after the other. In one process the
nodes take no time, or 10 ms each, so that what remains is the scheduler: ours logs every event to
a Valkey, the peers keep nothing. `graph_servers` measures the same over HTTP.

Aims: at most 60 us for a node with its events logged, at most 60 ms for 1,000 nodes of 10 ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import graph_servers
from benchmarks.alone import main
from benchmarks.graphs import CHAIN, LAYERED, WIDE, Shape
from benchmarks.installed import LANGGRAPH, ROOT, Unusable, reason
from benchmarks.report import Row, Table
from benchmarks.rig import Size
from benchmarks.timing import Work

# Nodes of each shape in all: a second for the slowest.
NODES = {Size.QUICK: 2_000, Size.FULL: 30_000}

# A node that takes time: short, so that what a scheduler adds is seen.
NODE_SECONDS = 0.010

# All works of one scheduler, in full size on a machine that is busy.
MEASURE_SECONDS = 300.0

# What would talk to the network.
QUIET = {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"}


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A module that measures as `timing` says, and the interpreter that has what it needs."""

    name: str
    module: str
    python: Path


SCHEDULERS = (
    Scheduler("Vision", "benchmarks.own_missions", Path(sys.executable)),
    Scheduler("LangGraph", "benchmarks.langgraph_peer", LANGGRAPH / "bin" / "python"),
    Scheduler("bare asyncio", "benchmarks.bare", Path(sys.executable)),
)


async def run(size: Size) -> list[Table]:
    """In one process, then over sockets."""
    works = list(_works(NODES[size]))
    found = [await asyncio.to_thread(_rows, scheduler, works) for scheduler in SCHEDULERS]
    tables = [
        Table("scheduler", _title(work), rows)
        for work, rows in zip(works, zip(*found, strict=True), strict=True)
    ]
    return [*tables, *await graph_servers.run(size)]


def _works(nodes: int) -> Iterable[Work]:
    for shape in (LAYERED, WIDE, CHAIN):
        yield Work(shape, 0.0, _runs(shape, nodes))
    for shape in (WIDE, LAYERED):  # the chain would take 5 s a run and tell nothing more
        yield Work(shape, NODE_SECONDS, _runs(shape, nodes))


def _runs(shape: Shape, nodes: int) -> int:
    return max(1, nodes // len(shape))


def _title(work: Work) -> str:
    time = f"of {work.delay * 1e3:.0f} ms" if work.delay else "that take no time"
    path = work.shape.critical_path
    return f"{work.shape.name} in one process, nodes {time}, longest path {path}"


def _rows(scheduler: Scheduler, works: list[Work]) -> list[Row]:
    """One for each work; without figures when it cannot be measured."""
    try:
        costs = _measure(scheduler, works)
    except (Unusable, subprocess.TimeoutExpired) as error:
        return [Row(scheduler.name, note=reason(error))] * len(works)
    return [_row(scheduler, work, cost) for work, cost in zip(works, costs, strict=True)]


def _measure(scheduler: Scheduler, works: list[Work]) -> list[dict[str, float]]:
    if not scheduler.python.exists():
        raise Unusable("not installed: make bench-peers")
    arguments = [word for work in works for word in work.arguments]
    done = subprocess.run(
        [scheduler.python, "-m", scheduler.module, *arguments],
        cwd=ROOT,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        timeout=MEASURE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise Unusable(done.stderr or f"it ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _row(scheduler: Scheduler, work: Work, cost: dict[str, float]) -> Row:
    figures = {"us/node": cost["cpu_us"], "wall ms": cost["wall_ms"]}
    if "valkey_us" in cost:
        figures["Valkey us/node"] = cost["valkey_us"]
    if work.delay:
        ideal = work.shape.critical_path * work.delay * 1e3
        figures["x longest path"] = cost["wall_ms"] / ideal
    return Row(scheduler.name, figures)


if __name__ == "__main__":
    main(run)
