"""How a scheduler is measured: so many runs of one graph, in a process of its own.

    python -m benchmarks.MODULE [SHAPE DELAY RUNS PORT]...

A scheduler is a module that does each work in turn and prints a line of JSON for it.

The law: the same for all, in this interpreter and in others (so only the standard library is used).
What is prepared for a run is not measured, nor are the first runs. Processor time is that of this
process alone, user and system. Garbage is collected as in our server, for all of them: otherwise
looking through what was imported would be a good part of what is compared.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import cache
from statistics import median

from benchmarks.graphs import SHAPES, TEXT, Shape
from benchmarks.load import Calls, chat

# The first run fills caches and pools; one more lets the interpreter specialise its code.
WARM_UP_RUNS = 2

# As in server.py: objects between two looks for cycles among the young ones.
YOUNG_OBJECTS = 20_000

Run = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Work:
    """A graph whose nodes take `delay` seconds each, and how often it is run.

    With a `port` each node is a call of the upstream that listens there, which takes about that.
    """

    shape: Shape
    delay: float
    runs: int
    port: int = 0

    @property
    def nodes(self) -> int:
        """How many are run and measured in all."""
        return len(self.shape) * self.runs

    @property
    def arguments(self) -> list[str]:
        """For the command line of the process that measures: see `works`."""
        return [self.shape.name, str(self.delay), str(self.runs), str(self.port)]


def works() -> list[Work]:
    """What this process was started for."""
    words = iter(sys.argv[1:])
    return [
        Work(SHAPES[shape], float(delay), int(runs), int(port))
        for shape, delay, runs, port in zip(words, words, words, words, strict=True)
    ]


async def node(work: Work) -> str:
    """What a node of a peer does: call the upstream, wait, or return without a turn of the loop.

    The client of the call keeps its connections and parses nothing, and so costs less than any that
    a peer would have.
    """
    if work.port:
        answer = await _calls(work.port).ask()
        assert answer.complete
    elif work.delay:
        await asyncio.sleep(work.delay)
    return TEXT


@cache
def _calls(port: int) -> Calls:
    return Calls(chat(port, 1, 0))


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time of a node, and the median time of a run."""

    cpu_us: float
    wall_ms: float


async def measure(work: Work, prepare: Callable[[], Awaitable[Run]]) -> Cost:
    """Prepare and run it as often as the work says."""
    cpu, walls = 0.0, []
    for number in range(WARM_UP_RUNS + work.runs):
        run = await prepare()
        if number == WARM_UP_RUNS:
            _settle_garbage()
        cpu_before, begin = time.process_time(), time.perf_counter()
        await run()
        if number >= WARM_UP_RUNS:
            walls.append(time.perf_counter() - begin)
            cpu += time.process_time() - cpu_before
    return Cost(cpu / work.nodes * 1e6, median(walls) * 1e3)


def _settle_garbage() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def report(cost: Cost, **more: float) -> None:
    """Tell the process that asked, in one line."""
    sys.stdout.write(json.dumps({**asdict(cost), **more}) + "\n")
