"""One client's way through a mission's events: the log, then what comes live.

The law: a subscriber sees every event behind its cursor once, in order, and only what is in the
log. It reads the log until it has caught up; then a live batch goes straight from the log's writer
to the client's socket, as long as that takes all of it. Otherwise batches wait in a bounded queue.
When the queue is full the live feed is dropped and the subscriber reads on from the log at its own
pace: memory stays bounded whatever clients do, and nothing is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from vision.missions.events import Batch
from vision.missions.log import Page

# What one subscriber may hold back: a usual stream's minute. The batches are shared between the
# subscribers of a mission, so this is also about the bound for all of them together.
QUEUE_BYTES: Final = 256 * 1024


class Sink(Protocol):
    """One client's end of a connection."""

    def write(self, batch: Batch) -> bool:
        """Send; False when the client has not taken all of it. Never raises and never waits."""

    async def drained(self) -> None:
        """Until the client has taken all. Raises what the transport raises when it is gone."""


class Subscriber:
    """One connection's bounded queue of live batches.

    `shortcut` is set while the client has everything up to now: it takes a batch past the queue,
    or answers False.
    """

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self.shortcut: Callable[[Batch], bool] | None = None
        self.overflowed = False

    def offer(self, batch: Batch) -> None:
        """Take a live batch. When it does not fit, all is dropped: the log has it too."""
        if self.overflowed or (self.shortcut is not None and self.shortcut(batch)):
            return
        if self._batches and self._bytes + batch.size > QUEUE_BYTES:
            self.look()
        else:
            self._batches.append(batch)
            self._bytes += batch.size
            self._arrived.set()

    async def wait(self) -> None:
        """Until something came or was dropped, or `wake`."""
        await self._arrived.wait()

    def wake(self) -> None:
        """End the wait: what the shortcut took wants attention."""
        self._arrived.set()

    def look(self) -> None:
        """Something may be missing from the queue: have the log read."""
        self.overflowed = True
        self._batches.clear()
        self._bytes = 0
        self._arrived.set()

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


class Watch:
    """One client's way through a mission's events, from its cursor to the end."""

    def __init__(
        self,
        subscriber: Subscriber,
        page: Page,
        cursor: int,
        *,
        read: Callable[[int], Awaitable[Page]],
        leave: Callable[[], None],
    ) -> None:
        self._subscriber = subscriber
        self._page = page
        self._cursor = cursor
        self._read = read
        self._leave: Callable[[], None] | None = leave
        self._ended = False
        self._taken = True  # whether the client has all that was written

    @property
    def over(self) -> bool:
        """Nothing is left to tell, and nothing will be."""
        return self._page.final and not self._page.events

    def close(self) -> None:
        """Hear of the mission no more."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    async def push(self, sink: Sink) -> None:
        """Write everything to the sink; returns when it has the mission's last event.

        Raises what the sink's `drained` raises, and `UnknownMission` when the mission expires.
        """
        try:
            await self._pages(sink)
            while not self._ended:
                await self._feed(sink)
                if not self._ended:  # something is missing: it is in the log
                    self._subscriber.restart()
                    self._page = await self._read(self._cursor)
                    await self._pages(sink)
        finally:
            self.close()

    async def _pages(self, sink: Sink) -> None:
        """From the page at hand to the end of the log."""
        while True:
            page = self._page
            if page.events or page.final:
                await self._deliver(page, sink)
            if self._ended or self._cursor >= page.end:
                return
            self._page = await self._read(self._cursor)

    async def _feed(self, sink: Sink) -> None:
        """What comes live, until the end or until something is missing."""
        subscriber = self._subscriber
        while not subscriber.overflowed and not self._ended:
            batch = subscriber.take()
            if batch is None:
                await self._shortcut(sink)
            elif batch.first > self._cursor + 1:
                return  # an event is missing between the log's page and the live feed
            elif batch.last > self._cursor:
                await self._deliver(batch.after(self._cursor), sink)

    async def _shortcut(self, sink: Sink) -> None:
        """While the client has everything, batches go to it from where they were written."""
        self._subscriber.shortcut = lambda batch: self._pass(batch, sink)
        try:
            await self._subscriber.wait()
        finally:
            self._subscriber.shortcut = None
        if not self._taken:
            await sink.drained()
            self._taken = True

    def _pass(self, batch: Batch, sink: Sink) -> bool:
        if batch.first != self._cursor + 1:
            return False
        self._note(batch)
        self._taken = sink.write(batch)
        if self._ended or not self._taken:
            self._subscriber.shortcut = None
            self._subscriber.wake()
        return True

    async def _deliver(self, batch: Batch, sink: Sink) -> None:
        self._note(batch)
        if not sink.write(batch):
            await sink.drained()

    def _note(self, batch: Batch) -> None:
        self._cursor = batch.last
        self._ended = batch.final
