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
    """A stream of the upstream itself, or of a peer that has its address and model."""
    return post(port, "/v1/chat/completions", chat_body(tokens, gap), b"[DONE]")


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
    def __init__(self, target: Target, over: asyncio.Future[Stream]) -> None:
        self._target = target
        self._over = over
        self._tail = b""
        self._keep = max(len(TOKEN), len(target.end)) - 1
        self.stream = Stream()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self.stream.sent = time.perf_counter()
        self._transport.write(self._target.request)

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
            self._transport.close()
        self._tail = (
            text[-self._keep :] if not tokens else text[text.rfind(TOKEN) + 4 :][-self._keep :]
        )

    def connection_lost(self, error: Exception | None) -> None:
        self.stream.last = time.perf_counter()
        if not self._over.done():
            self._over.set_result(self.stream)


async def stream(target: Target) -> Stream:
    """Send one request on a connection of its own and take the answer to its end."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[Stream] = loop.create_future()
    async with asyncio.timeout(STREAM_SECONDS):
        await loop.create_connection(lambda: _Client(target, over), "127.0.0.1", target.port)
        return await over


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
