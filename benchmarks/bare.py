"""The graph in nothing but asyncio: what no scheduler of tasks goes below.

The law: one task for each node, which awaits the tasks that it depends on. Nothing is checked,
logged, retried or cancelled. `python -m benchmarks.bare SHAPE DELAY RUNS` prints its cost as JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import uvloop

from benchmarks.graphs import TEXT
from benchmarks.timing import Run, Work, measure, report


async def _node(before: Sequence[asyncio.Task[str]], delay: float) -> str:
    for task in before:
        await task
    if delay:  # an instant model answers without a turn of the loop
        await asyncio.sleep(delay)
    return TEXT


async def _run(work: Work) -> None:
    tasks: dict[str, asyncio.Task[str]] = {}
    for name, before in work.shape.dependencies.items():
        waits = [tasks[each] for each in before]
        tasks[name] = asyncio.create_task(_node(waits, work.delay))
    results = await asyncio.gather(*tasks.values())
    assert len(results) == len(work.shape)


async def main(work: Work) -> None:
    """Measure and tell."""

    async def prepare() -> Run:
        return lambda: _run(work)

    report(await measure(work, prepare))


if __name__ == "__main__":
    uvloop.run(main(Work.from_arguments()))
