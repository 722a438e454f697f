"""Who may call: keys, and the tickets that stand in for them where no header can be set.

The law: a key is compared in constant time with every key there is, so that neither a near miss
nor its place in the list shows in the time taken. A ticket is good once, for a minute, on any
process; Redis holds only its hash.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from redis.asyncio import Redis

from vision.errors import Unauthorized
from vision.redis_edge import redis_calls

# A page asks for a ticket just before it connects; a minute covers a slow network and a retry.
TICKET_SECONDS: Final = 60

_HOW: Final = "send the header `Authorization: Vision <key>`"


class Keys:
    """The keys of this server."""

    def __init__(self, keys: Sequence[str]) -> None:
        # Hashes have one length, so a comparison does not tell how long a key is.
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, authorization: str | None) -> None:
        """Raise `Unauthorized` unless the header carries one of the keys."""
        if not authorization:
            raise Unauthorized(f"the key is missing; {_HOW}")
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "vision" or not self._known(key.strip()):
            raise Unauthorized(f"the key is not one of this server's; {_HOW}")

    def owner(self, authorization: str) -> str:
        """A name for who sent the header, the same for each of its requests, and no secret."""
        return hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def _known(self, key: str) -> bool:
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        return any(matches)


class Tickets:
    """Short-lived, single-use stand-ins for a key, for browsers' WebSocket and EventSource."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def issue(self) -> str:
        """A new ticket. Raises `StoreUnavailable`."""
        ticket = secrets.token_urlsafe(32)
        async with redis_calls():
            await self._redis.set(_key(ticket), b"1", ex=TICKET_SECONDS)
        return ticket

    async def redeem(self, ticket: str) -> None:
        """Use a ticket up. Raises `Unauthorized` and `StoreUnavailable`."""
        async with redis_calls():
            known = await self._redis.getdel(_key(ticket))
        if not known:
            raise Unauthorized("the ticket is used, expired or unknown; get one at /api/ticket")


def _key(ticket: str) -> str:
    digest = hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).hexdigest()
    return f"vision:ticket:{digest}"
