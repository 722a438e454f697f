"""The hub: routes logged events to the subscribers of this process.

The law: a subscriber sees every event behind its cursor once, in order, and only what is in the
log. It reads the log until it has caught up; then a live batch goes straight from the log's writer
to the client's socket, as long as that takes all of it. Otherwise batches wait in a bounded queue.
When the queue is full the live feed is dropped and the subscriber reads on from the log at its own
pace: memory stays bounded whatever clients do, and nothing is lost. All subscribers of a mission
share the same `Batch` objects, and so their frames.

A mission that this process runs feeds its subscribers directly; for one that another process runs
the hub asks for that process's feed (`join`, `part`), which may lose messages. So, while such a
feed is silent, the hub looks whether the log has grown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from vision.errors import StoreUnavailable
from vision.missions.events import Batch
from vision.missions.log import MissionLog, Page

# What one subscriber may hold back: a usual stream's minute. The batches are shared between the
# subscribers of a mission, so this is also about the bound for all of them together.
QUEUE_BYTES: Final = 256 * 1024

# How long the feed of a mission elsewhere may be silent before the hub looks into the log: late
# enough to cost nothing (one pipeline for all missions), soon enough for a person who waits.
LOOK_SECONDS: Final = 2.0

# While Redis is away, between two tries of a subscriber to read on.
RETRY_SECONDS: Final = 1.0


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


@dataclass(slots=True)
class _Feed:
    """The subscribers of one mission; `seen` is the last number that reached this process."""

    subscribers: set[Subscriber] = field(default_factory=set)
    seen: int = 0


class Hub:
    """Subscribers by mission. `join` and `part` ask for the feed of a mission that runs elsewhere.

    `run` is owned by the composition root.
    """

    def __init__(
        self, log: MissionLog, join: Callable[[str], None], part: Callable[[str], None]
    ) -> None:
        self._log = log
        self._join = join
        self._part = part
        self._feeds: dict[str, _Feed] = {}
        self._own: set[str] = set()

    def own(self, mission_id: str) -> None:
        """The mission runs in this process from now on."""
        self._own.add(mission_id)
        if mission_id in self._feeds:
            self._part(mission_id)

    def disown(self, mission_id: str) -> None:
        """It does so no more: it has ended, or another process has it."""
        self._own.discard(mission_id)
        if mission_id in self._feeds:
            self._join(mission_id)

    def publish(self, mission_id: str, batch: Batch) -> None:
        """Hand a batch that is in the log to all who watch the mission here."""
        feed = self._feeds.get(mission_id)
        if feed is not None:
            feed.seen = max(feed.seen, batch.last)
            for subscriber in feed.subscribers:
                subscriber.offer(batch)

    def look(self, mission_id: str) -> None:
        """Have all who watch the mission read the log: the feed may have missed something."""
        feed = self._feeds.get(mission_id)
        if feed is not None:
            for subscriber in feed.subscribers:
                subscriber.look()

    async def run(self) -> None:
        """Look after the missions that run elsewhere, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            elsewhere = [mission_id for mission_id in self._feeds if mission_id not in self._own]
            if elsewhere:
                await self._look_after(elsewhere)

    async def _look_after(self, mission_ids: list[str]) -> None:
        try:
            ends = await self._log.ends(mission_ids)
        except StoreUnavailable:
            return  # those who wait can only wait; this is tried again
        for mission_id, end in zip(mission_ids, ends, strict=True):
            feed = self._feeds.get(mission_id)
            if feed is not None and (end is None or end > feed.seen):
                feed.seen = end or feed.seen
                self.look(mission_id)

    def expect(self, mission_id: str) -> Watch:
        """All events of a mission that is yet to be recorded. `push` or `close` it."""
        subscriber = Subscriber()
        self._enter(mission_id, subscriber)
        return self._watch(mission_id, subscriber, Page(1, [], 0, final=False), 0)

    async def subscribe(self, mission_id: str, after: int) -> Watch:
        """All events behind the cursor, until the mission's last one. `push` or `close` it.

        Raises `UnknownMission`, `UnknownCursor` and `StoreUnavailable` at once, so that a client
        can be refused before its stream begins; once it has begun, it outlasts a Redis that is
        away.
        """
        subscriber = Subscriber()
        # Before the log is read: what is written meanwhile waits in the queue.
        self._enter(mission_id, subscriber)
        try:
            page = await self._log.read(mission_id, after)
        except BaseException:
            self._leave(mission_id, subscriber)
            raise
        return self._watch(mission_id, subscriber, page, after)

    def _watch(self, mission_id: str, subscriber: Subscriber, page: Page, after: int) -> Watch:
        return Watch(
            subscriber,
            page,
            after,
            read=lambda cursor: self._read(mission_id, cursor),
            leave=lambda: self._leave(mission_id, subscriber),
        )

    def _enter(self, mission_id: str, subscriber: Subscriber) -> None:
        feed = self._feeds.get(mission_id)
        if feed is None:
            feed = self._feeds[mission_id] = _Feed()
            if mission_id not in self._own:
                self._join(mission_id)
        feed.subscribers.add(subscriber)

    def _leave(self, mission_id: str, subscriber: Subscriber) -> None:
        feed = self._feeds[mission_id]
        feed.subscribers.remove(subscriber)
        if not feed.subscribers:
            del self._feeds[mission_id]
            if mission_id not in self._own:
                self._part(mission_id)

    async def _read(self, mission_id: str, cursor: int) -> Page:
        while True:
            try:
                return await self._log.read(mission_id, cursor)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS)


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
