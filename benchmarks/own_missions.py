"""The graph as a mission of ours, with the events in a real log, and a model that costs nothing.

The law: everything between the claim of a mission and its last event in the log is the server's own
code: graph, state machine, shell, log writer, and the embedded Valkey as the server starts it. Only
the model is replaced, by one that answers at once in one read. Not in it: accepting a mission over
HTTP, and subscribers. Started as `timing` says.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast
from uuid import uuid4

import uvloop
from redis.asyncio import Redis

from benchmarks.graphs import TEXT
from benchmarks.processes import exact_cpu
from benchmarks.timing import WARM_UP_RUNS, Run, Work, measure, report, works
from vision.children import DataFolder
from vision.missions.events import Batch
from vision.missions.log import MissionLog, Spec, encode_spec
from vision.missions.run import MissionRun, now_ms
from vision.missions.writer import LogWriter
from vision.models.call import Chunk, ModelCall, Timeouts, Usage
from vision.models.catalog import Catalog, default_catalog
from vision.models.upstream import Models
from vision.redis_edge import connect
from vision.valkey import EmbeddedValkey

MODEL = "gpt-3.5-turbo"

# As the upstream of the other cases ends a stream of one token that comes in one read.
ANSWER = [Chunk(TEXT), Chunk("", "stop"), Chunk("", None, Usage(10, 1, 11))]

# A mission is measured and then of no use: kept for a minute, it does not fill Valkey.
TTL_MS = 60_000


class InstantModels:
    """Stands for `Models`: its stream brings the whole answer in one read."""

    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def stream(
        self, call: ModelCall, timeouts: Timeouts
    ) -> AsyncGenerator[list[Chunk], None]:
        """Answer after the delay, or at once and without a turn of the loop."""
        if self._delay:
            await asyncio.sleep(self._delay)
        yield ANSWER


@dataclass(frozen=True, slots=True)
class Office:
    """What missions need to run, and which process keeps their log."""

    log: MissionLog
    writer: LogWriter
    catalog: Catalog
    valkey_pid: int

    async def mission(self, work: Work) -> Run:
        """A mission that was accepted and claimed; calling it runs it to its end."""
        mission_id = str(uuid4())
        spec = encode_spec(Spec(work.shape.prompts(MODEL, "go on")))
        await self.log.create(mission_id, spec, now_ms())
        claim = await self.log.acquire(mission_id)
        assert claim is not None
        models = cast("Models", InstantModels(work.delay))  # it has the one method that a run calls

        async def run() -> None:
            mission = MissionRun(claim, {}, catalog=self.catalog, models=models, writer=self.writer)
            assert await mission.run()
            ends = mission.state.outcomes.values()
            assert len(ends) == len(work.shape)
            assert all(outcome.content == TEXT for outcome in ends)

        return run


@asynccontextmanager
async def office(folder: DataFolder) -> AsyncIterator[Office]:
    """A Valkey of its own, and the log writer that runs."""
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    redis: Redis = connect(valkey.url)
    log = MissionLog(redis, mission_ttl_ms=TTL_MS)
    writer = LogWriter(log, _publish)
    writing = asyncio.create_task(writer.run())
    try:
        assert valkey.pid is not None
        yield Office(log, writer, default_catalog(None), valkey.pid)
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        await redis.aclose()
        await valkey.stop()


def _publish(mission_id: str, batch: Batch) -> None:
    """Nobody watches."""


async def main(folder: DataFolder) -> None:
    """Measure and tell."""
    async with office(folder) as here:
        for work in works():
            before = exact_cpu(here.valkey_pid)
            cost = await measure(work, partial(here.mission, work))
            used = exact_cpu(here.valkey_pid) - before
            all_nodes = len(work.shape) * (WARM_UP_RUNS + work.runs)
            report(cost, valkey_us=used / all_nodes * 1e6)


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory(prefix="vision-bench-") as name,
        closing(DataFolder(Path(name) / "data")) as data,
    ):
        uvloop.run(main(data))
