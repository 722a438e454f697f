"""One HTTP client for each upstream: connections, and one exchange at a time.

The law: an exchange holds a slot from before it connects until its response is closed. A response
that is closed before its end closes its socket, so the upstream notices at once; only one that was
read to its end gives the connection back. Every wait has a bound, and the error says which. What a
library raises leaves here as a ModelError without the key. Nothing is taken from the environment
but proxies and certificates, and proxies never for a loopback address.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec
from yarl import URL

from vision.errors import ModelError
from vision.models.backoff import parse_retry_after
from vision.models.call import Timeouts
from vision.models.catalog import Endpoint, Upstream
from vision.models.composing import Composed, compose
from vision.models.deadlines import Deadlines
from vision.models.failures import (
    bounded,
    cut_off,
    garbled,
    status_error,
    timeout_error,
    unreachable,
    without_key,
)
from vision.models.limits import Limiter

# uvicorn and cpp-httplib drop an idle connection after 5 s. To use one just then fails the request,
# so we let go first.
KEEPALIVE: Final = 3.0
# The end of a response follows [DONE] in the same packet or the next; without it the connection
# cannot be used again. Waiting longer would hold up the end of the node.
DRAIN: Final = 0.1
# Of an error's body, whose first sentence is what we tell.
MAX_ERROR_BYTES: Final = 64 * 1024

# What the library raises for a failed exchange; anything else is a bug and travels on.
_FOREIGN = (aiohttp.ClientError, OSError)


class Exchange:
    """A response while it is read; `media_type` is its content type without parameters."""

    def __init__(self, response: aiohttp.ClientResponse, deadlines: Deadlines) -> None:
        content_type = response.headers.get("content-type", "")
        self.media_type = content_type.partition(";")[0].strip().lower()
        self._content = response.content
        self._deadlines = deadlines

    async def read(self, which: str) -> bytes | None:
        """All that has arrived, None at the end; `which` names the timeout that bounds the wait."""
        return await self._deadlines.read(self._content, which) or None

    async def drain(self) -> None:
        """After the last event: reads to the end if it is near, so that the connection is kept."""
        # The answer is complete; whatever happens now only costs the connection.
        with suppress(TimeoutError, *_FOREIGN):
            async with asyncio.timeout(DRAIN):
                while await self._content.readany():
                    pass


class Client:
    """The connections to one upstream, and the slots for its calls.

    `endpoint` is asked at each call: the embedded model comes back at another address after a
    restart. It raises ModelError when there is none.
    """

    def __init__(
        self, upstream: Upstream, endpoint: Callable[[], Awaitable[Endpoint]], tls: ssl.SSLContext
    ) -> None:
        self.name = upstream.name
        self.limiter = Limiter(upstream.max_concurrency)
        self._endpoint = endpoint
        self._tls = tls
        self._connections: _Connections | None = None

    @asynccontextmanager
    async def exchange(
        self, path: str, body: Mapping[str, object], timeouts: Timeouts, which: str
    ) -> AsyncIterator[Exchange]:
        """Sends `body` to `path` and gives the response, which is closed with the block.

        Waits for a slot first, without a bound. `which` names the timeout that the wait for the
        response is under. Every failure, the block's own ModelErrors included, leaves as a
        ModelError.
        """
        key: str | None = None
        try:
            async with self.limiter.slot():
                connections = await self._current()
                key = connections.endpoint.api_key
                composed = await connections.composed(path)
                deadlines = Deadlines(self.name, timeouts)
                sent = connections.send(composed, body, timeouts.connect)
                response = await deadlines.wait(sent, which)
                try:
                    if not response.ok:
                        raise await self._refused(response, deadlines)
                    yield Exchange(response, deadlines)
                finally:
                    deadlines.close()
                    response.close()
        except ModelError as error:
            raise without_key(error, key) from error.__cause__
        except _FOREIGN as error:
            raise without_key(self._translate(error, timeouts), key) from error

    async def close(self) -> None:
        """Closes all connections; calls that still run fail, and those that wait or come later."""
        self._endpoint = self._nowhere
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()

    async def _nowhere(self) -> Endpoint:
        raise unreachable(self.name, "its connections are closed")

    async def _current(self) -> _Connections:
        endpoint = await self._endpoint()
        old = self._connections
        if old is not None and old.endpoint == endpoint:
            return old
        proxy = _proxy_for(URL(endpoint.base_url))
        if proxy is not None and proxy.scheme not in ("http", "https"):
            raise unreachable(
                self.name, f"a {proxy.scheme} proxy is not supported, use an HTTP one"
            )
        new = self._connections = _Connections(endpoint, proxy, self.limiter.capacity, self._tls)
        if old is not None:
            await old.close()
        return new

    async def _refused(self, response: aiohttp.ClientResponse, deadlines: Deadlines) -> ModelError:
        body = b""
        while len(body) < MAX_ERROR_BYTES:
            read = await deadlines.read(response.content, "total")
            if not read:
                break
            body += read
        wish = parse_retry_after(response.headers, time.time())
        return status_error(response.status, body, name=self.name, retry_after=wish)

    def _translate(self, error: Exception, timeouts: Timeouts) -> ModelError:
        if isinstance(error, aiohttp.ServerTimeoutError):
            return timeout_error("connect", timeouts.connect, name=self.name)
        if isinstance(error, aiohttp.ClientPayloadError):
            return cut_off(self.name)
        if isinstance(error, aiohttp.ClientResponseError):
            return garbled(f"{self.name} does not speak HTTP: {bounded(str(error))}")
        return unreachable(self.name, str(error) or type(error).__name__)


class _Connections:
    """The connections to one endpoint."""

    def __init__(
        self, endpoint: Endpoint, proxy: URL | None, capacity: int, tls: ssl.SSLContext
    ) -> None:
        self.endpoint = endpoint
        self._composed: dict[str, Composed] = {}
        self._proxy = proxy
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=capacity, keepalive_timeout=KEEPALIVE, ssl=tls),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def composed(self, path: str) -> Composed:
        composed = self._composed.get(path)
        if composed is None:
            composed = self._composed[path] = await compose(self.endpoint, path)
        return composed

    async def send(
        self, composed: Composed, body: Mapping[str, object], connect: float
    ) -> aiohttp.ClientResponse:
        return await self._session.post(
            composed.url,
            data=msgspec.json.encode(body),
            headers=composed.headers,
            proxy=self._proxy,
            # `connect` bounds the name lookup too. The other waits are bounded by `Deadlines`.
            timeout=aiohttp.ClientTimeout(total=None, connect=connect, sock_connect=connect),
        )

    async def close(self) -> None:
        await self._session.close()


def _proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for an address, as the standard library reads it."""
    host = url.host or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return URL(proxy) if proxy else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
