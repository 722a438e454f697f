"""Who may call: keys, and the tickets that stand in for them where no header can be set.

The law: a key is compared in constant time with every key there is, so that neither a near miss
nor its place in the list shows in the time taken. A ticket is good once, for a minute, on any
process; Redis holds only its hash.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from redis.asyncio import Redis

from vision.errors import Forbidden, Unauthorized
from vision.redis_edge import redis_calls

# A page asks for a ticket just before it connects; a minute covers a slow network and a retry.
TICKET_SECONDS: Final = 60

_HOW: Final = "send the header `Authorization: Vision <key>`"


class Role(StrEnum):
    """What a key is for. One key may be for several; none is for all by itself."""

    CLIENT = "client"
    PAYMENT = "payment"
    ADMIN = "admin"


class Keys:
    """The keys of this server, by role."""

    def __init__(self, keys: Mapping[Role, Sequence[str]]) -> None:
        # Hashes have one length, so a comparison does not tell how long a key is.
        self._hashes = [
            (hashlib.sha256(key.encode()).digest(), role) for role in Role for key in keys[role]
        ]

    def check(self, authorization: str | None, role: Role = Role.CLIENT) -> str:
        """A name for who holds the key: the same each time, and no secret.

        Raises `Unauthorized` unless the header carries one of the keys, and `Forbidden` when that
        is not a key for this role.
        """
        if not authorization:
            raise Unauthorized(f"the key is missing; {_HOW}")
        scheme, _, key = authorization.partition(" ")
        roles = self._roles(key.strip())
        if scheme.lower() != "vision" or not roles:
            raise Unauthorized(f"the key is not one of this server's; {_HOW}")
        if role not in roles:
            raise Forbidden(f"this key is not for this; it takes one with the role {role}")
        return hashlib.sha256(f"owner {key.strip()}".encode()).hexdigest()[:16]

    def _roles(self, key: str) -> set[Role]:
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return {role for known, role in self._hashes if hmac.compare_digest(given, known)}


class Tickets:
    """Short-lived, single-use stand-ins for a key, for browsers' WebSocket and EventSource."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def issue(self, owner: str) -> str:
        """A new ticket for who asks. Raises `StoreUnavailable`."""
        ticket = secrets.token_urlsafe(32)
        async with redis_calls():
            await self._redis.set(_key(ticket), owner, ex=TICKET_SECONDS)
        return ticket

    async def redeem(self, ticket: str) -> str:
        """Use a ticket up; who it was for. Raises `Unauthorized` and `StoreUnavailable`."""
        async with redis_calls():
            owner: Any = await self._redis.getdel(_key(ticket))
        if owner is None:
            raise Unauthorized("the ticket is used, expired or unknown; get one at /api/ticket")
        return str(owner.decode())


def _key(ticket: str) -> str:
    digest = hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).hexdigest()
    return f"vision:ticket:{digest}"
