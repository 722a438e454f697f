"""The graph in nothing but asyncio: what no scheduler of tasks goes below.

The law: one task for each node, which awaits the tasks that it depends on. Nothing is checked,
logged, retried or cancelled. Started as `timing` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import uvloop

from benchmarks.timing import Run, Work, measure, node, report, works


async def _node(before: Sequence[asyncio.Task[str]], work: Work) -> str:
    for task in before:
        await task
    return await node(work)


async def _run(work: Work) -> None:
    tasks: dict[str, asyncio.Task[str]] = {}
    for name, before in work.shape.dependencies.items():
        waits = [tasks[each] for each in before]
        tasks[name] = asyncio.create_task(_node(waits, work))
    results = await asyncio.gather(*tasks.values())
    assert len(results) == len(work.shape)


async def main() -> None:
    """Measure and tell."""
    for work in works():
        report(await measure(work, partial(_prepare, work)))


async def _prepare(work: Work) -> Run:
    return partial(_run, work)


if __name__ == "__main__":
    uvloop.run(main())
