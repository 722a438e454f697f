"""The queue of missions: a Redis stream with one consumer group, from which runners take.

The law: a mission that was accepted is in the queue until it has ended. Whoever takes it has a
claim, which it renews; a claim that was not renewed for the claim time passes to another. An entry
that is there twice, since an answer was lost, is harmless: a mission belongs to one entry, and its
epoch decides who may write.

A consumer's name lasts as long as its data folder, which one process at a time holds: what is
pending under one's own name at the start was left by a process that is dead, and is taken at once.

Sources: redis.io commands XREADGROUP (id `0` gives one's own pending entries), XCLAIM, XAUTOCLAIM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from vision.errors import Overloaded
from vision.missions import scripts
from vision.redis_batching import BatchedRedis
from vision.redis_edge import pairs, redis_calls

_STREAM: Final = "vision:queue"
_GROUP: Final = "runners"

# Missions that are queued or run, in all processes together. At a second each and 64 at once, a
# process works for half an hour at that; what is refused can be sent again, what waits is kept in
# Redis's memory.
MAX_QUEUED: Final = 100_000

# Hand-overs in a row of a mission that nobody began: a rolling restart of as many processes.
MAX_REPLACED: Final = 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """A claim on one mission: give it back with `done`, keep it with `renew`.

    `replaces` has the entries, with spaces between, in whose place this one was queued: a mission
    may be handed over again before the next runner has begun it.
    """

    entry_id: bytes
    mission_id: str
    replaces: bytes = b""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Missions that wait and that are claimed; when the first that waits was queued, in ms."""

    waiting: int
    claimed: int
    since_ms: int | None


class MissionQueue:
    """One consumer's view of the queue. Every method raises `StoreUnavailable`."""

    def __init__(self, redis: Redis, consumer: str) -> None:
        self._redis = redis
        self._calls = BatchedRedis(redis)
        self._consumer = consumer

    async def prepare(self) -> None:
        """Make the stream and its group, unless they are there."""
        async with redis_calls():
            try:
                await self._redis.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def offer(self, mission_id: str) -> None:
        """Queue a mission. Raises `Overloaded` when too many wait already."""
        if not await self._calls.evaluate(scripts.OFFER, [_STREAM], [mission_id, MAX_QUEUED]):
            raise _overloaded()

    async def exchange(self, mission_id: str) -> list[Ticket]:
        """Queue a mission and take the first that waits, in one step: itself, if none does.

        None is taken when Redis has lost the group. Raises `Overloaded`.
        """
        arguments = [mission_id, MAX_QUEUED, _GROUP, self._consumer]
        reply = await self._calls.evaluate(scripts.EXCHANGE, [_STREAM], arguments)
        if reply == 0:
            raise _overloaded()
        return _tickets((entry_id, pairs(fields)) for entry_id, fields in reply)

    async def left_over(self, count: int) -> list[Ticket]:
        """What this consumer had claimed before its process started."""
        return await self._read("0", count, None)

    async def take(self, count: int, wait_ms: int) -> list[Ticket]:
        """Up to `count` missions that nobody has claimed; waits for the first."""
        return await self._read(">", count, wait_ms)

    async def take_over(self, count: int, idle_ms: int) -> list[Ticket]:
        """Missions whose claim was not renewed for `idle_ms`."""
        tickets: list[Ticket] = []
        start: Any = "0-0"
        while len(tickets) < count:
            # One call looks at a few claims only, and living ones may stand before a dead one.
            async with redis_calls():
                start, entries, *_ = await self._redis.xautoclaim(
                    _STREAM,
                    _GROUP,
                    self._consumer,
                    min_idle_time=idle_ms,
                    start_id=start,
                    count=count - len(tickets),
                )
            tickets += _tickets(entries)
            if start == b"0-0":  # the end of the list
                break
        return tickets

    async def renew(self, tickets: Sequence[Ticket]) -> set[Ticket]:
        """Keep the claims; the result has those that are still this consumer's."""
        entries = {ticket.entry_id: ticket for ticket in tickets}
        arguments = [_GROUP, self._consumer, *entries]
        kept = await self._calls.evaluate(scripts.RENEW, [_STREAM], arguments)
        return {entries[entry_id] for entry_id in kept}

    async def holds(self, ticket: Ticket) -> bool:
        """Whether the claim is still this consumer's."""
        return ticket in await self.renew([ticket])

    async def hand_over(self, ticket: Ticket) -> None:
        """Let any runner take the mission at once, as if it had just been queued."""
        replaced = [ticket.entry_id, *ticket.replaces.split()][:MAX_REPLACED]
        async with redis_calls(), self._redis.pipeline(transaction=True) as pipe:
            pipe.xadd(_STREAM, {"mission": ticket.mission_id, "replaces": b" ".join(replaced)})
            pipe.xack(_STREAM, _GROUP, ticket.entry_id)
            pipe.xdel(_STREAM, ticket.entry_id)
            await pipe.execute()

    async def backlog(self) -> Backlog:
        """How many missions wait for a runner, and for how long the first one has."""
        async with redis_calls(), self._redis.pipeline(transaction=False) as pipe:
            pipe.xlen(_STREAM)
            pipe.xpending(_STREAM, _GROUP)
            pipe.xinfo_groups(_STREAM)
            length, pending, groups = await pipe.execute()
            last = groups[0]["last-delivered-id"] if groups else b"0-0"
            following: Any = await self._redis.xrange(_STREAM, min=b"(" + last, count=1)
        running = pending["pending"]
        since = int(following[0][0].split(b"-")[0]) if following else None
        return Backlog(waiting=max(0, length - running), claimed=running, since_ms=since)

    async def done(self, ticket: Ticket) -> None:
        """The mission has ended: take it out of the queue."""
        await self._calls.evaluate(scripts.DONE, [_STREAM], [_GROUP, ticket.entry_id])

    async def _read(self, position: str, count: int, wait_ms: int | None) -> list[Ticket]:
        async with redis_calls():
            try:
                reply: Any = await self._redis.xreadgroup(
                    _GROUP, self._consumer, {_STREAM: position}, count=count, block=wait_ms
                )
            except ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                reply = []  # Redis came back empty
                await self.prepare()
        return [ticket for _, entries in reply for ticket in _tickets(entries)]


def _overloaded() -> Overloaded:
    return Overloaded(f"{MAX_QUEUED} missions are queued; try again a little later")


def _tickets(entries: Any) -> list[Ticket]:
    """Entries as the client gives them; one that was deleted while it was claimed has no fields."""
    return [
        Ticket(entry_id, fields[b"mission"].decode(), fields.get(b"replaces", b""))
        for entry_id, fields in entries
        if fields
    ]
