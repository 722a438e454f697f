"""Idempotency keys: the same request, sent again, is the same mission.

The law: a key belongs to the client key that used it, and to the first body it came with. It is
kept as long as a finished mission is, and names a mission before that is recorded: whoever comes
second with it completes what the first may have left undone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from vision.errors import IdempotencyConflict, InvalidRequest
from vision.redis_edge import redis_calls

# Long enough for a UUID with a prefix, short enough for a log line.
MAX_LENGTH: Final = 255


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's key: `owner` is who sent it (never a secret), `body` the bytes it came with."""

    key: str
    owner: str
    body: bytes

    def __post_init__(self) -> None:
        if not (0 < len(self.key) <= MAX_LENGTH and self.key.isascii() and self.key.isprintable()):
            why = f"must be 1 to {MAX_LENGTH} printable ASCII characters"
            raise InvalidRequest(why, path="Idempotency-Key")


class IdempotencyKeys:
    """Which key stands for which mission."""

    def __init__(self, redis: Redis, *, ttl_ms: int) -> None:
        self._redis = redis
        self._ttl_ms = ttl_ms

    async def claim(self, key: IdempotencyKey, mission_id: str) -> str:
        """The mission that the key stands for: `mission_id`, unless it was used before.

        Raises `IdempotencyConflict` when it came with another body, and `StoreUnavailable`.
        """
        body = hashlib.sha256(key.body).hexdigest()
        async with redis_calls():
            before: Any = await self._redis.set(
                _name(key), f"{body} {mission_id}", nx=True, get=True, px=self._ttl_ms
            )
        if before is None:
            return mission_id
        first_body, first_mission = before.decode().split(" ")
        if first_body != body:
            raise IdempotencyConflict(
                "this key was used with another body; use a new one", path="Idempotency-Key"
            )
        return str(first_mission)


def _name(key: IdempotencyKey) -> str:
    digest = hashlib.sha256(f"{key.owner} {key.key}".encode()).hexdigest()
    return f"vision:idempotency:{digest}"
