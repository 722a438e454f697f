"""The live feed between processes: Redis pub/sub, for missions that another process runs.

The law: pub/sub is a bell, not a record. A message may be lost, and then the log is read: whenever
a subscription begins or begins again, whoever follows the mission is told to look there. One
connection serves the process, whatever the number of missions.

Each append is published in the slot of its mission (sharded pub/sub, Redis >= 7), and one channel
carries what runners have to know at once: that a client cancels something, wherever it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from vision.errors import StoreUnavailable
from vision.missions.events import Batch
from vision.missions.log import channel, parse_live
from vision.redis_edge import receiver, redis_calls

_logger = structlog.get_logger(__name__)

_CONTROL: Final = "vision:control"

# How long one read waits. It only bounds how late a lost connection is noticed.
READ_SECONDS: Final = 1.0

# While Redis is away: soon enough to go on without a visible pause, slow enough not to be a load.
RETRY_SECONDS: Final = 0.5


class Wish(msgspec.Struct, frozen=True, rename="camel"):
    """What a client wants to end: a mission, or one node of it."""

    mission_id: str
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who is told: of a batch, of a mission whose log has to be read, and of a wish to cancel."""

    batch: Callable[[str, Batch], None]
    look: Callable[[str], None]
    cancel: Callable[[Wish], None]


class LiveFeed:
    """One process's ear and mouth. `run` is owned by the composition root."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        # Set by the composition root before `run`: those who listen are built after those who tell.
        self.listeners: Listeners
        self._wanted: dict[str, str] = {}  # channel -> mission
        self._joined: set[str] = set()
        self._changed = asyncio.Event()

    def join(self, mission_id: str) -> None:
        """Hear of a mission from now on; `look` follows when that is so."""
        self._wanted[channel(mission_id)] = mission_id
        self._changed.set()

    def part(self, mission_id: str) -> None:
        """Hear of it no more."""
        self._wanted.pop(channel(mission_id), None)
        self._changed.set()

    async def wish(self, wish: Wish) -> None:
        """Tell every process that a client cancels something. Raises `StoreUnavailable`."""
        async with redis_calls():
            await self._redis.spublish(_CONTROL, msgspec.json.encode(wish))

    async def run(self) -> None:
        """Listen until cancelled; begin again whenever the connection is lost."""
        while True:
            try:
                await self._listen()
            except StoreUnavailable as error:
                _logger.warning("live_feed_lost", error=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        self._joined.clear()
        self._changed.set()
        pubsub = self._redis.pubsub()
        try:
            async with redis_calls():
                await pubsub.ssubscribe(_CONTROL)
            async with _without_reconnecting(pubsub), asyncio.TaskGroup() as group:
                group.create_task(self._keep_joined(pubsub))
                group.create_task(self._read(pubsub))
        except* StoreUnavailable as errors:
            raise errors.exceptions[0] from None
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # the client has no types here

    async def _keep_joined(self, pubsub: PubSub) -> None:
        """Bring what is joined to what is wanted, all at once."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            wanted = set(self._wanted)
            async with redis_calls():
                if new := wanted - self._joined:
                    await pubsub.ssubscribe(*new)
                if old := self._joined - wanted:
                    await pubsub.sunsubscribe(*old)
            self._joined = wanted

    async def _read(self, pubsub: PubSub) -> None:
        receive = receiver(self._redis, pubsub)
        while True:
            async with redis_calls():
                message = await receive(READ_SECONDS)
            if message is not None:
                self._hear(message)

    def _hear_wish(self, message: bytes) -> None:
        try:
            wish = msgspec.json.decode(message, type=Wish)
        except msgspec.MsgspecError:
            # Of a newer version, or not ours: the canceller takes over when nobody answers.
            _logger.warning("wish_not_understood", size=len(message))
            return
        self.listeners.cancel(wish)

    def _hear(self, message: dict[str, Any]) -> None:
        name = message["channel"].decode()
        if name == _CONTROL:
            if message["type"] == "smessage":
                self._hear_wish(message["data"])
            return
        mission_id = self._wanted.get(name)
        if mission_id is None:
            return
        if message["type"] == "ssubscribe":
            self.listeners.look(mission_id)
        elif message["type"] == "smessage":
            self.listeners.batch(mission_id, parse_live(message["data"]))


@asynccontextmanager
async def _without_reconnecting(pubsub: PubSub) -> AsyncIterator[None]:
    """A lost connection is an error, with which the listening begins anew.

    Left to itself the client reconnects in whichever task calls it: the one that reads and the one
    that joins would do so at once, each with a connection of its own, one of which is then lost.
    """
    connection = pubsub.connection
    if connection is None:  # of a cluster's client, which has one for each shard
        yield
        return
    retry, connection.retry = connection.retry, Retry(NoBackoff(), 0, supported_errors=())
    try:
        yield
    finally:
        connection.retry = retry  # the client may use it again
