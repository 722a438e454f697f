"""Redis commands of many callers in one round trip.

The law: whatever was asked while the last round trip was in flight goes out in the next one. There
is no timer: a lone command leaves at once, many at once share the cost of a trip, which is most of
the cost of a command. Each caller gets its own answer or its own error. Commands of one caller are
in order, since it waits for each; those of different callers are in no order that may be relied on.

For short commands only: one that blocks would hold up all behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from vision.errors import StoreUnavailable
from vision.redis_edge import unavailable
from vision.redis_trips import Command, by_name, trips

# Callers that share one trip, and its failure. Sixteen hide its cost as well, but of a hundred
# missions at once the last have to wait for seven trips then, three times over.
MAX_CALLERS: Final = 64


class BatchedRedis:
    """One process's short commands. For one event loop.

    What waits is bounded by its callers, each of which waits for its own answer.
    """

    def __init__(self, redis: Redis) -> None:
        self._way = trips(redis)
        # In order, and each answer's commands side by side.
        self._waiting: dict[asyncio.Future[list[Any]], Sequence[Command]] = {}
        self._trips: asyncio.Task[None] | None = None

    async def call(self, *command: Any) -> Any:
        """The answer to one command, as `redis` gives it. Raises `StoreUnavailable`."""
        [answer] = await self.call_all(command)
        return answer

    async def call_all(self, *commands: Command) -> list[Any]:
        """The answers to several, which run in this order. Raises the first error among them."""
        answers: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting[answers] = commands
        if self._trips is None:
            # Ends by itself when nobody waits any more; each trip is bounded in time.
            self._trips = asyncio.create_task(self._travel(), name="redis trips")
        return await answers

    async def evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What a Lua script answers. Raises `StoreUnavailable`."""
        operands = (len(keys), *keys, *arguments)
        try:
            return await self.call(*by_name(script), *operands)
        except NoScriptError:  # a server that is new or was restarted; nothing was run
            return await self.call("EVAL", script, *operands)

    async def _travel(self) -> None:
        try:
            while self._waiting:
                batch = dict(islice(self._waiting.items(), MAX_CALLERS))
                for answers in batch:
                    del self._waiting[answers]
                await self._trip(batch)
        finally:
            self._trips = None

    async def _trip(self, batch: Mapping[asyncio.Future[list[Any]], Sequence[Command]]) -> None:
        commands = [command for each in batch.values() for command in each]
        try:
            replies = iter(await self._send(commands))
        except RedisError as error:
            replies = iter([error] * len(commands))
        for answers, asked in batch.items():
            own = list(islice(replies, len(asked)))
            if answers.done():
                continue  # its caller has been cancelled
            failed = next((reply for reply in own if isinstance(reply, Exception)), None)
            if failed is None:
                answers.set_result(own)
            else:
                answers.set_exception(failed)

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        try:
            return list(map(_reply, await self._way.send(commands)))
        except StoreUnavailable as error:
            return [error] * len(commands)


def _reply(reply: Any) -> Any:
    """With our error in place of one that only time can change; a bug of ours stays as it is."""
    if not isinstance(reply, RedisError):
        return reply
    try:
        return unavailable(reply)
    except RedisError as bug:
        return bug
