"""Round trips on a connection that is kept.

The law: the answers to one trip are read before the next one begins, or the connection is dropped:
what is left on it would be taken for the answers to other commands. A kept connection that Redis
has closed meanwhile is replaced once, without a word; the commands go out again then, and are such
that a second copy is harmless.

A connection from the client's pool for each trip, with its checks, cost a third of the trip. The
client of a cluster has no one connection to keep, so it finds its own for each command.

Source: redis-py, `redis.asyncio.connection` (a connection sends packed commands and reads replies).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    ReadOnlyError,
    ResponseError,
)

from vision.redis_edge import is_cluster, redis_calls

Command = tuple[Any, ...]


@cache
def by_name(script: str) -> Command:
    """How a command begins that runs a script which Redis knows; it says so if it does not.

    Then the script is sent whole (`EVAL`) on the same way, after which that server knows it. Loaded
    on any other connection it might be loaded where it is not run: a primary that was demoted keeps
    its connections.
    """
    return "EVALSHA", sha1(script.encode(), usedforsecurity=False).hexdigest()


class Trips(Protocol):
    """A way to Redis. Several callers may use it; they wait for each other."""

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies as `redis` gives them, refusals of single commands among them as exceptions.

        Raises `StoreUnavailable`.
        """


def trips(redis: Redis) -> Trips:
    """The way that suits the client."""
    return _Pipelines(redis) if is_cluster(redis) else _KeptConnection(redis)


class _Pipelines:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        async with redis_calls(), self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)


class _KeptConnection:
    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._callbacks = redis.response_callbacks
        self._connection: AbstractConnection | None = None
        self._free = asyncio.Lock()

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        async with redis_calls(), self._free:
            kept = self._connection is not None
            try:
                return await self._trip(commands)
            except (RedisConnectionError, OSError):
                if not kept:
                    raise
            return await self._trip(commands)

    async def _trip(self, commands: Sequence[Command]) -> list[Any]:
        if self._connection is None:
            pool: Any = self._pool  # the client has no types here
            self._connection = await pool.get_connection()
        connection = self._connection
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            replies = [await self._reply(connection, command[0]) for command in commands]
        except BaseException:
            await self._drop(connection)
            raise
        if any(map(_read_only, replies)):
            await self._drop(connection)
        return replies

    async def _drop(self, connection: AbstractConnection) -> None:
        self._connection = None
        await connection.disconnect(nowait=True)
        await self._pool.release(connection)

    async def _reply(self, connection: AbstractConnection, name: str) -> Any:
        try:
            reply = await connection.read_response()
        except ResponseError as refusal:
            return refusal
        callback = self._callbacks.get(name)
        return reply if callback is None else callback(reply)


def _read_only(reply: Any) -> bool:
    """Whether a command, or a part of a script's answer, met a primary that is one no more.

    Its connection has to go: only a new one asks the sentinels who is the primary now.
    """
    parts = reply if isinstance(reply, list) else [reply]
    return any(isinstance(part, ReadOnlyError) for part in parts)
