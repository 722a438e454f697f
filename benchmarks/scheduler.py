"""Case 4: what a scheduled node costs, in one process and over real sockets.

    python -m benchmarks.scheduler [--full]

The law: the same graphs for all, in processes that run one after the other. In one process the
nodes take no time, or 10 ms each, so that what remains is the scheduler: ours logs every event to
a Valkey, the peers keep nothing. `graph_servers` measures the same over HTTP.

Aims: at most 60 us for a node with its events logged, at most 60 ms for 1,000 nodes of 10 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from benchmarks import graph_servers
from benchmarks.alone import main
from benchmarks.graphs import CHAIN, LAYERED, WIDE, Shape
from benchmarks.report import Table
from benchmarks.rig import Size
from benchmarks.schedulers import OURS, PEERS, rows
from benchmarks.timing import Work

# Nodes of each shape in all: half a second for the slowest.
NODES = {Size.QUICK: 1_000, Size.FULL: 30_000}

# A node that takes time: short, so that what a scheduler adds is seen.
NODE_SECONDS = 0.010

# Of a chain: 500 of the others would take 5 s a run. Timers count whole milliseconds.
CHAIN_SECONDS = 0.001
CHAIN_RUNS = 1


async def run(size: Size) -> list[Table]:
    """In one process, then over sockets."""
    works = list(_works(NODES[size]))
    found = [await asyncio.to_thread(rows, scheduler, works) for scheduler in (OURS, *PEERS)]
    tables = [
        Table("scheduler", _title(work), rows)
        for work, rows in zip(works, zip(*found, strict=True), strict=True)
    ]
    return [*tables, *await graph_servers.run(size)]


def _works(nodes: int) -> Iterable[Work]:
    for shape in (LAYERED, WIDE, CHAIN):
        yield Work(shape, 0.0, _runs(shape, nodes))
    for shape in (WIDE, LAYERED):
        yield Work(shape, NODE_SECONDS, _runs(shape, nodes))
    yield Work(CHAIN, CHAIN_SECONDS, CHAIN_RUNS)


def _runs(shape: Shape, nodes: int) -> int:
    return max(1, nodes // len(shape))


def _title(work: Work) -> str:
    time = f"of {work.delay * 1e3:.0f} ms" if work.delay else "that take no time"
    path = work.shape.critical_path
    return f"{work.shape.name} in one process, nodes {time}, longest path {path}"


if __name__ == "__main__":
    main(run)
