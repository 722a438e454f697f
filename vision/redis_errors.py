"""What it means when Redis does not do what it was asked.

The law: no exception of the Redis client leaves the module that called it. Whatever a client of
ours can only wait for (no connection, a time-out, a server that loads, is full, or is a read-only
replica) becomes `StoreUnavailable`; anything else is a bug of ours and stays as it is.
"""

from __future__ import annotations

from typing import Final

from redis.exceptions import (
    BusyLoadingError,
    ConnectionError as RedisConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from vision.errors import StoreUnavailable

# Answers that only time, or an operator, can change. MISCONF: it cannot write its append-only file.
_REFUSALS: Final = (
    "OOM",
    "READONLY",
    "LOADING",
    "MISCONF",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
)

REDIS_DOWN: Final = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    OSError,
)


def unavailable(error: BaseException) -> StoreUnavailable:
    """The error to raise in place of `error`. A bug of ours comes back as itself, raised."""
    refused = str(error).startswith(_REFUSALS)
    if isinstance(error, ResponseError) and not refused and not isinstance(error, REDIS_DOWN):
        raise error
    return StoreUnavailable(f"the mission store does not answer ({type(error).__name__})")
