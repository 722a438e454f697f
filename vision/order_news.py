"""News of orders, from whichever process settled them to whoever watches for a buyer here.

The law: news is a bell, not a record: it may be lost, and the order in the database is what counts.
It is told after the commit, and only to those who hold a key and have asked for that buyer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis

from vision.background import Background
from vision.errors import StoreUnavailable
from vision.redis_edge import receiver, redis_calls

_logger = structlog.get_logger(__name__)

_CHANNEL: Final = "vision:orders"

# How long one read waits. It only bounds how late a lost connection is noticed.
READ_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5  # while Redis is away

News = Mapping[str, Any]


class OrderNews:
    """One process's ear and mouth for orders. `run` is owned by the composition root."""

    def __init__(self, redis: Redis, background: Background) -> None:
        self._redis = redis
        self._background = background
        self._watchers: dict[str, set[Callable[[News], None]]] = {}

    def tell(self, uid: str, news: News) -> None:
        """Tell all processes, soon."""
        self._background.start(self._tell(uid, news), name="order news")

    async def _tell(self, uid: str, news: News) -> None:
        message = msgspec.json.encode({"uid": uid, "news": news})
        try:
            async with redis_calls():
                await self._redis.spublish(_CHANNEL, message)
        except StoreUnavailable as error:
            _logger.warning("order_news_lost", error=error.message)

    @contextmanager
    def watch(self, uid: str, hear: Callable[[News], None]) -> Iterator[None]:
        """Hear of a buyer's orders while the block lasts."""
        watchers = self._watchers.setdefault(uid, set())
        watchers.add(hear)
        try:
            yield
        finally:
            watchers.discard(hear)
            if not watchers:
                self._watchers.pop(uid, None)

    async def run(self) -> None:
        """Listen until cancelled; begin again whenever the connection is lost."""
        while True:
            try:
                await self._listen()
            except StoreUnavailable as error:
                _logger.warning("order_news_away", error=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        pubsub = self._redis.pubsub()
        receive = receiver(self._redis, pubsub)
        try:
            async with redis_calls():
                await pubsub.ssubscribe(_CHANNEL)
            while True:
                async with redis_calls():
                    message = await receive(READ_SECONDS)
                if message is not None and message["type"] == "smessage":
                    self._hear(msgspec.json.decode(message["data"]))
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]  # the client has no types here

    def _hear(self, message: dict[str, Any]) -> None:
        for hear in list(self._watchers.get(message["uid"], ())):
            hear(message["news"])
