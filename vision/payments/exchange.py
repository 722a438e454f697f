"""HTTP to a gateway: one client each, every wait bounded, every failure translated.

The law: what the network does to an exchange leaves here as GatewayUnavailable, which says that the
call may or may not have been carried out. An answer is returned as it came: status, headers, raw
bytes, never more of them than allowed. Nothing is followed (redirects) or decoded here: what is
signed are the bytes. `repeated` tries a call again; it is for calls that carry our own number, so
that twice counts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from vision.payments.errors import GatewayUnavailable

_T = TypeVar("_T")

# An answer of either gateway is a few kilobytes.
MOST_ANSWER: Final = 1 << 20
# A day of some hundred thousand orders; beyond that a bill should not be read into memory.
MOST_BILL: Final = 128 << 20


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait for a gateway, and how often to try; all times in seconds.

    `answer` is what both gateways' documentation advises, from connecting to the last byte; `bill`
    likewise for a download. `pauses` between attempts are short, because a client waits for its
    code meanwhile, and few, because the reconciler comes back anyway. `refresh` is how soon after
    one download of certificates there may be another: what was refused is repeated after 15 s.
    """

    connect: float = 3.0
    answer: float = 6.0
    bill: float = 120.0
    pauses: tuple[float, ...] = (0.1, 0.5)
    refresh: float = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """The connections to one gateway. Made and closed on the event loop that uses it."""

    def __init__(self, name: str, pace: Pace) -> None:
        """`name` is the gateway's, for messages."""
        self._name = name
        self._pace = pace
        self._session = aiohttp.ClientSession(
            # No cookies: no gateway needs them, and they would tie calls together.
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def call(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One exchange of the API; `url` is sent exactly as it is. Raises GatewayUnavailable."""
        return await self._send(method, url, headers, body, self._pace.answer, MOST_ANSWER)

    async def download(self, url: str, headers: Mapping[str, str]) -> Answer:
        """A bill. Raises GatewayUnavailable."""
        return await self._send("GET", url, headers, b"", self._pace.bill, MOST_BILL)

    async def repeated(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """The call's result, tried again after each pause while the gateway is unavailable."""
        for pause in self._pace.pauses:
            try:
                return await call()
            except GatewayUnavailable:
                await asyncio.sleep(pause)
        return await call()

    async def aclose(self) -> None:
        """Close all connections; running calls fail."""
        await self._session.close()

    async def _send(  # noqa: PLR0917 -- two callers, right above
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        total: float,
        most: int,
    ) -> Answer:
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=self._pace.connect)
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body or None,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                content = await self._read(response, most)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            reason = str(error) or type(error).__name__
            raise GatewayUnavailable(f"{self._name} does not answer: {reason}") from error
        names = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, names, content)

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        parts = bytearray()
        async for part in response.content.iter_any():
            parts += part
            if len(parts) > most:
                raise GatewayUnavailable(f"{self._name} answers with more than {most} bytes")
        return bytes(parts)
