"""The two ends of a mission's stream: a runner's side that writes, and a subscriber that collects.

The law: a subscriber refuses a batch that does not begin right behind its cursor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from vision.missions.events import Batch, MissionStatus
from vision.missions.hub import Hub
from vision.missions.log import Append, MissionLog
from vision.missions.watch import Watch


def event(seq: int) -> bytes:
    return b'{"seq":%d}' % seq


def numbers(first: int, last: int) -> list[bytes]:
    return [event(seq) for seq in range(first, last + 1)]


class Mission:
    """One mission, and its runner's side of the log and the hub."""

    def __init__(self, log: MissionLog, hub: Hub) -> None:
        self.log = log
        self.hub = hub
        self.seq = 0

    async def begin(self) -> None:
        await self.log.create("m", b"[]", 1)
        assert await self.log.acquire("m") is not None

    async def add(self, count: int, *, final: bool = False, live: bool = True) -> Batch:
        batch = Batch(self.seq + 1, numbers(self.seq + 1, self.seq + count), final=final)
        status = MissionStatus.SUCCEEDED if final else None
        assert await self.log.append([Append("m", 1, batch, {}, status, 9)]) == [None]
        self.seq += count
        if live:
            self.hub.publish("m", batch)
        return batch


async def watch(hub: Hub, after: int = 0) -> list[bytes]:
    """All events until the end."""
    return [event async for batch in follow(hub, after) for event in batch.events]


async def follow(hub: Hub, after: int = 0) -> AsyncGenerator[Batch, None]:
    cursor = after
    async with aclosing(batches_of(await hub.subscribe("m", after))) as batches:
        async for batch in batches:
            assert batch.first == cursor + 1
            cursor = batch.last
            yield batch


async def batches_of(found: Watch) -> AsyncGenerator[Batch, None]:
    """What is pushed, batch by batch; who has not asked for the next one has not taken the last."""
    sink = _Slow()
    push = asyncio.create_task(found.push(sink))
    try:
        while (batch := await sink.next(push)) is not None:
            yield batch
    finally:
        push.cancel()
        await asyncio.wait({push})
    push.result()


class _Slow:
    """A client that takes one batch at a time."""

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._came = asyncio.Event()
        self._taken = asyncio.Event()

    def write(self, batch: Batch) -> bool:
        assert self._batch is None, "written to a client that had not taken the last"
        self._batch = batch
        self._taken.clear()
        self._came.set()
        return False

    async def drained(self) -> None:
        await self._taken.wait()

    async def next(self, push: asyncio.Task[None]) -> Batch | None:
        self._batch = None
        self._came.clear()
        self._taken.set()
        came = asyncio.create_task(self._came.wait())
        await asyncio.wait({came, push}, return_when=asyncio.FIRST_COMPLETED)
        came.cancel()
        return self._batch
