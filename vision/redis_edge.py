"""How this server calls Redis: bounded in time, and with errors of its own.

The law: no exception of the Redis client leaves the module that called it, and no call waits for
ever. Whatever a client of ours can only wait for (no connection, no answer in time, a server that
loads, is full, or is a read-only replica) becomes `StoreUnavailable`; anything else is a bug of
ours and stays as it is.

The time limit is ours and not the client's `socket_timeout`: that one wraps each send in
`asyncio.wait_for`, which in Python 3.11 can swallow the cancellation of the task around it
(python/cpython issue 86296), so that a task of ours would never end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    DataError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from vision.errors import StoreUnavailable
from vision.redis_url import parse_redis_url

# More than the longest look into the queue waits (two seconds), so that it is never cut off; a
# Redis that takes longer than this for an answer is as good as away.
CALL_SECONDS: Final = 10.0

# Calls at the same time; more of them wait for one to come back, which takes less than a
# millisecond. Redis runs one command at a time, so more connections would not make it faster.
MAX_CONNECTIONS: Final = 64

# The clients of a cluster and of sentinels refuse a call above this instead of letting it wait: as
# many as a burst of readers may be, and far below what a Redis accepts (10,000).
MAX_CONNECTIONS_WATCHED: Final = 2048

# One question to one sentinel; the next one is asked when it does not answer.
SENTINEL_SECONDS: Final = 1.0

# Answers that only time, or an operator, can change. MISCONF: it cannot write its append-only file;
# UNBLOCKED: it became a replica while we waited for work.
_REFUSALS: Final = (
    *("OOM", "READONLY", "LOADING", "MISCONF", "NOREPLICAS", "UNBLOCKED"),
    *("MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"),
)

_DOWN: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,  # no node of the cluster can be reached, or none has the slot
    OSError,  # TimeoutError, that of `asyncio.timeout`, is one
)


def connect(url: str) -> Redis:
    """A client for a URL of the setting `redis-url`; it connects at the first call.

    A cluster's client is no `Redis` by its class, but has the methods of one that are used here;
    a sentinel's asks for the primary anew whenever a connection is lost.
    """
    parsed = parse_redis_url(url)
    options: dict[str, Any] = {"socket_timeout": None, "socket_connect_timeout": CALL_SECONDS}
    if not parsed.hosts:
        pool = BlockingConnectionPool.from_url(
            url, max_connections=MAX_CONNECTIONS, timeout=CALL_SECONDS, **options
        )
        kind = pool.connection_class  # by the scheme: TCP, TLS or a Unix socket
        pool.connection_class = type(f"Packing{kind.__name__}", (_Packing, kind), {})
        return Redis.from_pool(pool)
    options["max_connections"] = MAX_CONNECTIONS_WATCHED
    options |= {"username": parsed.username, "password": parsed.password}
    if parsed.scheme == "redis+cluster":
        nodes = [ClusterNode(host, port) for host, port in parsed.hosts]
        return cast("Redis", RedisCluster(startup_nodes=nodes, **options))
    watchers = Sentinel(  # type: ignore[no-untyped-call]  # the client has no types here
        list(parsed.hosts), sentinel_kwargs={"socket_timeout": SENTINEL_SECONDS}
    )
    primary: Redis = watchers.master_for(parsed.name, **options)
    return primary


class _Packing:
    """A connection that packs commands in C, as the client's own blocking connections do.

    Its Python packing took a quarter of what an append costs.
    """

    def pack_command(self, *arguments: Any) -> list[bytes]:
        return [self._pack(arguments)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [b"".join(map(self._pack, map(tuple, commands)))]

    @staticmethod
    def _pack(command: tuple[Any, ...]) -> bytes:
        name, *rest = command
        try:
            packed: bytes = hiredis.pack_command((*name.split(), *rest))
        except TypeError as error:
            raise DataError(str(error)) from error
        return packed


def is_cluster(redis: Redis) -> bool:
    """Whether keys may be touched together only where they share a slot."""
    return isinstance(redis, RedisCluster)


def receiver(redis: Redis, pubsub: PubSub) -> Callable[[float], Awaitable[dict[str, Any] | None]]:
    """How to wait for a message of sharded channels: a cluster has a connection to each shard."""
    if is_cluster(redis):
        return lambda seconds: cast("Any", pubsub).get_sharded_message(timeout=seconds)
    return lambda seconds: pubsub.get_message(timeout=seconds)


@asynccontextmanager
async def redis_calls() -> AsyncIterator[None]:
    """Around one or several calls of the client. Raises `StoreUnavailable`."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            yield
    except (*_DOWN, ResponseError) as error:
        raise unavailable(error) from error


def unavailable(error: BaseException) -> StoreUnavailable:
    """The error to raise in place of `error`. A bug of ours comes back as itself, raised."""
    refused = str(error).startswith(_REFUSALS)
    if isinstance(error, ResponseError) and not refused and not isinstance(error, _DOWN):
        raise error
    return StoreUnavailable(f"the mission store does not answer ({type(error).__name__})")


def pairs(flat: Sequence[bytes] | Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """A hash as a Lua script gives it: a flat list, in either version of the protocol."""
    if isinstance(flat, Mapping):
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))
