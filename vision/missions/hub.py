"""The hub: routes logged events to the subscribers of this process.

The law: a subscriber sees every event behind its cursor once, in order, and only what is in the
log. It reads the log until it has caught up, then follows the live feed through a bounded queue.
When the queue is full the live feed is dropped and the subscriber reads on from the log at its own
pace: memory stays bounded whatever clients do, and nothing is lost. All subscribers of a mission
share the same `Batch` objects, and so their frames.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from vision.errors import StoreUnavailable
from vision.missions.events import Batch
from vision.missions.log import MissionLog

# What one subscriber may hold back: a usual stream's minute. The batches are shared between the
# subscribers of a mission, so this is also about the bound for all of them together.
QUEUE_BYTES: Final = 256 * 1024

# A safety net for a live feed that does not come (its runner is another process that died): the
# subscriber then looks into the log by itself.
POLL_SECONDS: Final = 2.0


class Subscriber:
    """One connection's bounded queue of live batches."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self.overflowed = False

    def offer(self, batch: Batch) -> None:
        """Take a live batch. When it does not fit, all is dropped: the log has it too."""
        if self.overflowed:
            return
        if self._batches and self._bytes + batch.size > QUEUE_BYTES:
            self.overflowed = True
            self._batches.clear()
            self._bytes = 0
        else:
            self._batches.append(batch)
            self._bytes += batch.size
        self._arrived.set()

    async def wait(self) -> None:
        """Until something came, was dropped, or the safety net's time is over."""
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._arrived.wait()
        except TimeoutError:
            self.overflowed = True

    def take(self) -> Batch | None:
        """The next batch, if there is one."""
        if not self._batches:
            self._arrived.clear()
            return None
        batch = self._batches.popleft()
        self._bytes -= batch.size
        return batch

    def restart(self) -> None:
        """Listen to the live feed again, before the log is read."""
        self.overflowed = False


@dataclass(frozen=True, slots=True)
class Watch:
    """A mission's events behind a cursor; `over` when there are none and will be none."""

    batches: AsyncGenerator[Batch, None]
    over: bool


class Hub:
    """Subscribers by mission. Owned by the composition root; has no task of its own."""

    def __init__(self, log: MissionLog) -> None:
        self._log = log
        self._subscribers: dict[str, set[Subscriber]] = {}

    def publish(self, mission_id: str, batch: Batch) -> None:
        """Hand a batch that is in the log to all who watch the mission here."""
        for subscriber in self._subscribers.get(mission_id, ()):
            subscriber.offer(batch)

    async def subscribe(self, mission_id: str, after: int) -> Watch:
        """All events behind the cursor, until the mission's last one.

        Raises `UnknownMission`, `UnknownCursor` and `StoreUnavailable` at once, so that a client
        can be refused before its stream begins; once it has begun, it outlasts a Redis that is
        away. Close the batches (`contextlib.aclosing`) to unsubscribe.
        """
        page = await self._log.read(mission_id, after)
        over = page.final and not page.events
        return Watch(self._watch(mission_id, after, page), over)

    async def _watch(
        self, mission_id: str, cursor: int, page: Batch
    ) -> AsyncGenerator[Batch, None]:
        subscriber = Subscriber()
        self._subscribers.setdefault(mission_id, set()).add(subscriber)
        try:
            async with aclosing(self._follow(subscriber, mission_id, cursor, page)) as batches:
                async for batch in batches:
                    yield batch
                    if batch.final:
                        return
        finally:
            self._leave(mission_id, subscriber)

    def _leave(self, mission_id: str, subscriber: Subscriber) -> None:
        others = self._subscribers[mission_id]
        others.remove(subscriber)
        if not others:
            del self._subscribers[mission_id]

    async def _follow(
        self, subscriber: Subscriber, mission_id: str, cursor: int, page: Batch
    ) -> AsyncGenerator[Batch, None]:
        if page.events or page.final:
            yield page
            cursor = page.last
        while True:
            subscriber.restart()
            while (page := await self._read(mission_id, cursor)).events or page.final:
                yield page
                cursor = page.last
            while not subscriber.overflowed:
                batch = subscriber.take()
                if batch is None:
                    await subscriber.wait()
                elif batch.first > cursor + 1:
                    break  # an event is missing between the log's page and the live feed
                elif batch.last > cursor:
                    fresh = batch.after(cursor)
                    yield fresh
                    cursor = fresh.last

    async def _read(self, mission_id: str, cursor: int) -> Batch:
        while True:
            try:
                return await self._log.read(mission_id, cursor)
            except StoreUnavailable:
                await asyncio.sleep(POLL_SECONDS)
