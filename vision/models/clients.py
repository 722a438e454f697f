"""One HTTP client for each upstream: authentication, connections, one exchange at a time.

The law: an exchange holds a slot from before it connects until its response is closed. A response
that is closed before its end closes its socket, so the upstream notices at once; only one that was
read to its end gives the connection back. Every wait has a bound, and the error says which. What a
library raises leaves here as a ModelError without the key. Nothing is taken from the environment
but proxies and certificates, and proxies never for a loopback address.

`openai` is used for what it knows (authentication, errors, connections), its response objects are
not: a pydantic object for each token costs more than the rest of the server together.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TypeVar

import aiohttp
import httpx2
import openai
from openai import AsyncOpenAI, DefaultAioHttpClient, Omit

from vision.errors import ModelError
from vision.models.backoff import parse_retry_after
from vision.models.call import Timeouts
from vision.models.catalog import Endpoint, Upstream
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

_T = TypeVar("_T")

# uvicorn and cpp-httplib drop an idle connection after 5 s. To use one just then fails the request,
# so we let go first.
KEEPALIVE = 3.0
# The end of a response follows [DONE] in the same packet or the next; without it the connection
# cannot be used again. Waiting longer would hold up the end of the node.
DRAIN = 0.1

# What the libraries raise for a failed exchange; anything else is a bug and travels on.
_FOREIGN = (openai.OpenAIError, httpx2.HTTPError, aiohttp.ClientError, OSError)
# The header by which `with_streaming_response` tells openai's client to leave the body unread.
_UNREAD = {"X-Stainless-Raw-Response": "stream"}


class Deadlines:
    """The timeouts of one call, counted from its start. For one event loop."""

    def __init__(self, name: str, timeouts: Timeouts) -> None:
        self._name = name
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()

    async def wait(self, awaited: Awaitable[_T], which: str) -> _T:
        """Awaits until the bound `which` (`first_token`, `idle` or `total`) or the total one.

        Raises ModelError `upstream_timeout` with the one that was reached.
        """
        timeouts = self._timeouts
        when = last = self._start + timeouts.total
        if which == "first_token":
            when = self._start + timeouts.first_token
        elif which == "idle":
            when = self._loop.time() + timeouts.idle
        try:
            async with asyncio.timeout_at(min(when, last)) as bound:
                return await awaited
        except TimeoutError:
            if not bound.expired():
                raise
        reached = which if when < last else "total"
        raise timeout_error(reached, getattr(timeouts, reached), name=self._name)


class Exchange:
    """A response while it is read; `media_type` is its content type without parameters."""

    def __init__(
        self, response: httpx2.Response, reads: AsyncGenerator[bytes, None], deadlines: Deadlines
    ) -> None:
        content_type: str = response.headers.get("content-type", "")
        self.media_type = content_type.partition(";")[0].strip().lower()
        self._reads = reads
        self._deadlines = deadlines

    async def read(self, which: str) -> bytes | None:
        """All that has arrived, None at the end; `which` names the timeout that bounds the wait."""
        try:
            return await self._deadlines.wait(self._reads.__anext__(), which)
        except StopAsyncIteration:
            return None

    async def drain(self) -> None:
        """After the last event: reads to the end if it is near, so that the connection is kept."""
        # The answer is complete; whatever happens now only costs the connection.
        with suppress(StopAsyncIteration, TimeoutError, *_FOREIGN):
            async with asyncio.timeout(DRAIN):
                while True:
                    await self._reads.__anext__()


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
        self._current: Endpoint | None = None
        self._openai: AsyncOpenAI | None = None

    @asynccontextmanager
    async def exchange(
        self, path: str, body: Mapping[str, object], timeouts: Timeouts, which: str
    ) -> AsyncIterator[Exchange]:
        """Sends `body` to `path` and gives the response, which is closed with the block.

        Waits for a slot first, without a bound. `which` names the timeout that the wait for the
        response is under. Every failure, the block's own ModelErrors included, leaves as a
        ModelError.
        """
        try:
            async with self.limiter.slot():
                connections = await self._connections()
                deadlines = Deadlines(self.name, timeouts)
                sent = self._send(connections, path, body, timeouts.connect)
                response = await deadlines.wait(sent, which)
                async with aclosing(response), aclosing(response.aiter_bytes()) as reads:
                    yield Exchange(response, reads, deadlines)
        except ModelError as error:
            raise without_key(error, self._key()) from error.__cause__
        except _FOREIGN as error:
            raise without_key(self._translate(error, timeouts), self._key()) from error

    async def close(self) -> None:
        """Closes all connections; calls that still run fail."""
        client, self._openai, self._current = self._openai, None, None
        if client is not None:
            await client.close()

    def _key(self) -> str | None:
        return None if self._current is None else self._current.api_key

    async def _connections(self) -> AsyncOpenAI:
        endpoint = await self._endpoint()
        if self._openai is not None and endpoint == self._current:
            return self._openai
        old, client = self._openai, self._new(endpoint)
        self._openai, self._current = client, endpoint
        if old is not None:
            await old.close()
        return client

    def _new(self, endpoint: Endpoint) -> AsyncOpenAI:
        limits = httpx2.Limits(max_connections=self.limiter.capacity, keepalive_expiry=KEEPALIVE)
        return AsyncOpenAI(
            base_url=endpoint.base_url,
            # Never None: openai would take OPENAI_API_KEY and send it to whoever is at base_url.
            api_key=endpoint.api_key or "none",
            max_retries=0,
            http_client=DefaultAioHttpClient(
                limits=limits, verify=self._tls, trust_env=not _is_loopback(endpoint.base_url)
            ),
        )

    async def _send(
        self, client: AsyncOpenAI, path: str, body: Mapping[str, object], connect: float
    ) -> httpx2.Response:
        headers: dict[str, str | Omit] = {
            **_UNREAD,
            # A compressed stream may be held back until there is enough to compress.
            "Accept-Encoding": "identity",
            # From the environment, and for OpenAI alone; a key belongs to one project anyway.
            "OpenAI-Organization": Omit(),
            "OpenAI-Project": Omit(),
        }
        # Named in any case: openai would let OPENAI_CUSTOM_HEADERS overrule the key.
        key = self._key()
        headers["Authorization"] = Omit() if key is None else f"Bearer {key}"
        # `pool` bounds the name lookup too. The other waits are bounded by `Deadlines`.
        timeout = httpx2.Timeout(connect=connect, pool=connect, read=None, write=None)
        return await client.post(
            path,
            cast_to=httpx2.Response,
            body=body,
            options={"headers": headers, "timeout": timeout},
        )

    def _translate(self, error: BaseException, timeouts: Timeouts) -> ModelError:
        """The first aiohttp error among the causes decides: the transport under `openai` reports a
        refused or dropped connection as a timeout."""
        if isinstance(error, openai.APIStatusError):
            wish = parse_retry_after(error.response.headers, time.time())
            body = error.response.content
            return status_error(error.status_code, body, name=self.name, retry_after=wish)
        causes = list(_causes(error))
        cause = next((each for each in causes if isinstance(each, aiohttp.ClientError)), error)
        if isinstance(cause, aiohttp.ServerTimeoutError):
            return timeout_error("connect", timeouts.connect, name=self.name)
        if isinstance(cause, aiohttp.ClientPayloadError):
            return cut_off(self.name)
        if isinstance(cause, aiohttp.ClientResponseError | httpx2.DecodingError):
            return garbled(f"{self.name} does not speak HTTP: {bounded(str(cause))}")
        return unreachable(self.name, str(cause) or type(cause).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _is_loopback(url: str) -> bool:
    host = httpx2.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
