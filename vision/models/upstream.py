"""Calls of models: as a stream of chunks, or whole with retries.

The law: a call that is cancelled or closed, at whatever moment, closes its upstream's socket before
it returns and gives its slot to the next. A stream is never tried again here, since its reader has
seen its beginning; a whole answer is. Every failure is a ModelError.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar

import httpx2

from vision.errors import ModelError
from vision.models.backoff import retry_delay
from vision.models.call import Chunk, Completion, ModelCall, Timeouts
from vision.models.candidates import assemble, one_body, prompt_bodies
from vision.models.catalog import Catalog, Endpoint, Upstream
from vision.models.clients import Client, Exchange
from vision.models.failures import garbled
from vision.models.limits import Limiter
from vision.models.replies import Reply, StreamProgress, read_reply
from vision.models.sse import SseDecoder

__all__ = ["Endpoint", "Models"]

# The longest answers are some 100,000 tokens; with log probabilities a token takes about 4 kB.
MAX_REPLY_BYTES = 1 << 29
_PATHS = {"chat": "/chat/completions", "completion": "/completions"}
# How servers refuse an `n` above their own bound (llama.cpp: its number of slots).
_BAD_PARAMETER = frozenset({400, 422})
_T = TypeVar("_T")


class Models:
    """All upstreams of a catalog. For one event loop; `close` it when no call runs any more."""

    def __init__(self, catalog: Catalog, local_endpoint: Callable[[], Awaitable[Endpoint]]) -> None:
        """`local_endpoint` waits for the embedded model; ModelError if it cannot start."""
        # Reading the certificates takes 30 ms: once, here, and not on the loop at a first call.
        tls = httpx2.create_ssl_context()
        self._clients = {
            name: Client(upstream, _endpoint_of(upstream, local_endpoint), tls)
            for name, upstream in catalog.upstreams.items()
        }

    @property
    def limiters(self) -> Mapping[str, Limiter]:
        """By upstream: how many calls run and wait."""
        return MappingProxyType({name: each.limiter for name, each in self._clients.items()})

    async def stream(
        self, call: ModelCall, timeouts: Timeouts
    ) -> AsyncGenerator[list[Chunk], None]:
        """The answer as it comes; one list holds all that arrived in one read, never empty.

        For one prompt and one result. With `best_of` the answer can only come whole: one chunk.
        Raises ModelError. Who leaves it before its end has to `aclose` it, which closes the socket.
        """
        if call.n != 1 or isinstance(call.body.get("prompt"), list | tuple):
            raise ValueError("a stream has one prompt and one result")
        if call.best_of > 1:
            best = await self.complete(call, timeouts, retries=0)
            yield [Chunk(best.texts[0], best.finish_reasons[0], best.usage)]
            return
        client = self._clients[call.route.upstream]
        body = {**call.body, "stream": True, "stream_options": {"include_usage": True}}
        async with client.exchange(
            _PATHS[call.route.kind], body, timeouts, "first_token"
        ) as exchange:
            if exchange.media_type in ("application/json", "text/html"):
                yield _as_chunks(await _whole(exchange))  # it does not stream, or reports an error
                return
            decoder, progress = SseDecoder(), StreamProgress()
            read: bytes | None = b""
            while read is not None and not progress.over:
                read = await exchange.read("idle" if progress.begun else "first_token")
                if read is None:
                    chunks = progress.take_rest(decoder.flush())
                else:
                    chunks = progress.take(decoder.feed(read))
                if chunks:
                    yield chunks
            progress.check_end(client.name)
            await exchange.drain()

    async def complete(self, call: ModelCall, timeouts: Timeouts, retries: int) -> Completion:
        """The whole answer: `call.n` texts for each prompt.

        Each request that this takes (one for each prompt, more when the upstream gives fewer
        candidates than asked) has its own slot, its own timeouts (connect and total; a whole answer
        has no first token) and its own `retries`. The first failure ends them all; ModelError.
        """
        prompts = prompt_bodies(call)
        replies = await _together(
            self._candidates(call, body, timeouts, retries) for body in prompts
        )
        return assemble(call, replies)

    async def close(self) -> None:
        """Closes all connections."""
        for client in self._clients.values():
            await client.close()

    async def _candidates(
        self, call: ModelCall, body: Mapping[str, object], timeouts: Timeouts, retries: int
    ) -> list[Reply]:
        """Replies that hold `best_of` candidates for one prompt, however few come at a time."""

        def ask(request: Mapping[str, object]) -> Coroutine[None, None, Reply]:
            return self._ask(call, request, timeouts, retries)

        wanted = call.best_of
        if wanted == 1:
            return [await ask(body)]
        try:
            first = await ask({**body, "n": wanted})
        except ModelError as error:
            if error.status not in _BAD_PARAMETER:
                raise
            # Either `n` is too large for it, or the request is wrong anyway; then it says so again.
            first = await ask(body)
        given = len(first.candidates)
        rest = await _together(ask(one_body(body, number)) for number in range(given, wanted))
        return [first, *rest]

    async def _ask(
        self, call: ModelCall, body: Mapping[str, object], timeouts: Timeouts, retries: int
    ) -> Reply:
        attempt = 1
        while True:
            try:
                return await self._once(call, body, timeouts)
            except ModelError as error:
                if attempt > retries or not error.retryable:
                    raise
                # One of 1000 steps is jitter enough to spread calls that failed together.
                wait = retry_delay(attempt, error.retry_after, secrets.randbelow(1000) / 1000)
            await asyncio.sleep(wait)
            attempt += 1

    async def _once(self, call: ModelCall, body: Mapping[str, object], timeouts: Timeouts) -> Reply:
        client = self._clients[call.route.upstream]
        async with client.exchange(_PATHS[call.route.kind], body, timeouts, "total") as exchange:
            return await _whole(exchange)


def _endpoint_of(
    upstream: Upstream, local_endpoint: Callable[[], Awaitable[Endpoint]]
) -> Callable[[], Awaitable[Endpoint]]:
    if upstream.base_url is None:
        return local_endpoint
    fixed = Endpoint(upstream.base_url, upstream.api_key)

    async def endpoint() -> Endpoint:
        return fixed

    return endpoint


async def _whole(exchange: Exchange) -> Reply:
    parts: list[bytes] = []
    size = 0
    while (read := await exchange.read("total")) is not None:
        size += len(read)
        if size > MAX_REPLY_BYTES:
            raise garbled(f"the upstream's answer is larger than {MAX_REPLY_BYTES} bytes")
        parts.append(read)
    return read_reply(b"".join(parts))


def _as_chunks(reply: Reply) -> list[Chunk]:
    candidate = reply.candidates[0]
    return [Chunk(candidate.text, candidate.finish_reason, reply.usage)]


async def _together(asked: Iterable[Coroutine[None, None, _T]]) -> list[_T]:
    """All results in order. The first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in asked]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
