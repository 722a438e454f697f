"""The hub: routes logged events to the subscribers of this process.

The law: a batch that is in the log is offered to every subscriber of its mission here, the same
`Batch` to all, so that they share its frames. What a subscriber does with it is in `watch.py`.

A mission that this process runs feeds its subscribers directly; for one that another process runs
the hub asks for that process's feed (`join`, `part`), which may lose messages. So, while such a
feed is silent, the hub looks whether the log has grown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from vision.errors import StoreUnavailable
from vision.missions.events import Batch
from vision.missions.log import MissionLog, Page
from vision.missions.watch import Subscriber, Watch

# How long the feed of a mission elsewhere may be silent before the hub looks into the log: late
# enough to cost nothing (one pipeline for all missions), soon enough for a person who waits.
LOOK_SECONDS: Final = 2.0

# While Redis is away, between two tries of a subscriber to read on.
RETRY_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Feed:
    """The subscribers of one mission, and what reached this process: the last number, the end."""

    subscribers: set[Subscriber] = field(default_factory=set)
    seen: int = 0
    ended: bool = False


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
        """The mission is this process's from now on."""
        self._own.add(mission_id)
        if mission_id in self._feeds:
            self._part(mission_id)

    def disown(self, mission_id: str) -> None:
        """It is so no more: it has ended, or another process has it."""
        self._own.discard(mission_id)
        self.follow(mission_id)

    def follow(self, mission_id: str) -> None:
        """Hear of a mission that is watched here, unless it is this process's or has ended."""
        feed = self._feeds.get(mission_id)
        if feed is not None and not feed.ended and mission_id not in self._own:
            self._join(mission_id)

    def publish(self, mission_id: str, batch: Batch) -> None:
        """Hand a batch that is in the log to all who watch the mission here."""
        feed = self._feeds.get(mission_id)
        if feed is not None:
            feed.seen = max(feed.seen, batch.last)
            feed.ended |= batch.final
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
        """All events of a mission that is yet to be accepted; then `follow` it.

        `push` or `close` the watch. Which process will have the mission is not known yet.
        """
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
        if self._enter(mission_id, subscriber):
            self.follow(mission_id)
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

    def _enter(self, mission_id: str, subscriber: Subscriber) -> bool:
        """Whether it is the first that watches the mission here."""
        feed = self._feeds.setdefault(mission_id, _Feed())
        feed.subscribers.add(subscriber)
        return len(feed.subscribers) == 1

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
