"""Load clients: they send bytes that were made before, and parse nothing.

The law: a client costs the same whatever it talks to. It looks for two marks in what arrives: the
text of a token, which stands nowhere else, and the end of the answer. So it counts every token,
and knows when the first one came and how long the pauses were, without understanding a byte.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import cast

TOKEN = b" tok"  # as `upstream.mjs` writes it

# The very end of an answer in chunks (RFC 9112, section 7.1).
CHUNKS_END = b"\r\n0\r\n\r\n"

# A stream that is not over by then is a failure of what is measured.
STREAM_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send a request: its bytes, and what stands at the end of the answer."""

    port: int
    request: bytes
    end: bytes


def post(port: int, path: str, body: object, end: bytes, **headers: str) -> Target:
    """A target for a JSON body."""
    return Target(port, http_request("POST", path, json.dumps(body).encode(), headers), end)


def http_request(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A request as it goes out."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines.append("Content-Type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + body


def question(tokens: int, gap: int) -> str:
    """A prompt that `upstream.mjs` answers with so many tokens, `gap` milliseconds apart."""
    return f"tokens={tokens} gap={gap}"


def chat_body(tokens: int, gap: int) -> dict[str, object]:
    """The request of a streamed chat, as our server sends it too."""
    message = {"role": "user", "content": question(tokens, gap)}
    options = {"include_usage": True}
    return {"model": "bench", "messages": [message], "stream": True, "stream_options": options}


def chat(port: int, tokens: int, gap: int) -> Target:
    """A stream of the upstream itself, to the very end of its last chunk."""
    return post(port, "/v1/chat/completions", chat_body(tokens, gap), CHUNKS_END)


@dataclass(slots=True)
class Stream:
    """What one answer brought; times in seconds."""

    sent: float = 0.0
    first: float | None = None  # until the first token
    last: float = 0.0
    tokens: int = 0
    gaps: list[float] = field(default_factory=list)  # between reads that brought tokens
    complete: bool = False
    size: int = 0


class _Client(asyncio.Protocol):
    """One connection, and the answer that comes over it."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._keep = max(len(TOKEN), len(target.end)) - 1
        self._tail, self._closes = b"", True
        self._over: asyncio.Future[Stream] | None = None
        self.stream = Stream()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    @property
    def open(self) -> bool:
        return not self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()

    async def ask(self, *, close: bool) -> Stream:
        """Send the request and take the answer to its end; then `close` the connection, or not."""
        self._over = asyncio.get_running_loop().create_future()
        self._tail, self._closes = b"", close
        self.stream = Stream(sent=time.perf_counter())
        self._transport.write(self._target.request)
        try:
            return await self._over
        except asyncio.CancelledError:
            self._transport.abort()  # what is left of the answer is nobody's
            raise

    def data_received(self, data: bytes) -> None:
        now, stream = time.perf_counter(), self.stream
        stream.size += len(data)
        text = self._tail + data
        # A mark in the tail was whole before and is not counted again: cut to what may be a part.
        if tokens := text.count(TOKEN):
            stream.tokens += tokens
            if stream.first is None:
                stream.first = now - stream.sent
            else:
                stream.gaps.append(now - stream.last)
            stream.last = now
        if self._target.end in text:
            stream.complete = True
            if self._closes:
                self._transport.close()
            else:
                self._end()
        self._tail = (
            text[-self._keep :] if not tokens else text[text.rfind(TOKEN) + 4 :][-self._keep :]
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self.stream.last = time.perf_counter()
            self._over.set_result(self.stream)


async def stream(target: Target) -> Stream:
    """Send one request on a connection of its own and take the answer to its end."""
    async with asyncio.timeout(STREAM_SECONDS):
        client = await _connect(target)
        return await client.ask(close=True)


async def _connect(target: Target) -> _Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: _Client(target), "127.0.0.1", target.port)
    return client


class Calls:
    """The same request again and again, on connections that are kept as a good client keeps them.

    `target.end` has to be the very end of an answer: what comes after it would be the next one's.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._free: list[_Client] = []

    async def ask(self) -> Stream:
        """One of them, on a connection that is free, or on a new one."""
        async with asyncio.timeout(STREAM_SECONDS):
            while self._free:
                client = self._free.pop()
                if client.open:
                    break
            else:
                client = await _connect(self._target)
            answer = await client.ask(close=False)
        if answer.complete:
            self._free.append(client)
        return answer

    def close(self) -> None:
        """Close the connections that are free."""
        for client in self._free:
            client.close()


async def streams(target: Target, count: int) -> list[Stream]:
    """As many at once."""
    return await asyncio.gather(*(stream(target) for _ in range(count)))


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 99th percentile, in milliseconds."""

    p50: float
    p99: float


def spread(seconds: Sequence[float]) -> Spread:
    """Of two values or more."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return Spread(cuts[49] * 1e3, cuts[98] * 1e3)
