"""WebSocket clients that send bytes made before, and parse nothing.

The law: a client costs the same whatever it talks to. An event is counted by the one mark that each
has once, its number; text inside an event cannot look like it, since quotes are escaped there.

Source: RFC 6455, sections 1.3 (handshake) and 5.2 (frames).
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from typing import cast

EVENT = b'"seq":'
LAST = b'"type":"finished"'
OPEN = b" 101 "  # of the status line
SUBSCRIBED = b'"subscribed"'

# What may be the beginning of a mark whose rest is still to come.
KEEP = max(map(len, (EVENT, LAST, OPEN, SUBSCRIBED))) - 1

# Handshakes in flight: below the backlog of every server's port.
AT_ONCE = 200

# Each takes well under a millisecond of the server's time; one that hangs is a failure.
OPEN_SECONDS = 60.0


def handshake(path: str) -> bytes:
    """The request of a client; the key is the RFC's own example, since nobody checks the reply."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Vision chat\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def message(document: object) -> bytes:
    """A text frame of a client. Its mask is zero, which leaves the payload as it is."""
    payload = json.dumps(document).encode()
    length = bytes([0x80 | len(payload)])
    if len(payload) > 125:
        length = bytes([0x80 | 126]) + len(payload).to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + payload


def raise_descriptor_limit() -> None:
    """As many sockets as the system allows without asking, for us and for whom we start."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Subscriber(asyncio.Protocol):
    """One socket. `arrivals` has the moment of each event in turn, on `time.perf_counter`; `over`
    is done when the mission's last event is in.
    """

    def __init__(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        self._path = path
        self._tail = b""
        self._marks = {mark: loop.create_future() for mark in (OPEN, SUBSCRIBED, LAST)}
        self._awaited = [OPEN, SUBSCRIBED, LAST]  # in the order in which they come
        self.arrivals: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(handshake(self._path))

    def data_received(self, data: bytes) -> None:
        text = self._tail + data
        if events := text.count(EVENT):
            self.arrivals += [time.perf_counter()] * events
        while self._awaited and self._awaited[0] in text:
            mark = self._marks[self._awaited.pop(0)]
            if not mark.done():  # nobody waits for it any more
                mark.set_result(None)
        # A mark that was counted is cut off, so that it is not counted again.
        counted = text.rfind(EVENT) + len(EVENT) if events else 0
        self._tail = text[max(counted, len(text) - KEEP) :]

    def connection_lost(self, error: Exception | None) -> None:
        for mark in self._awaited:
            if not self._marks[mark].done():
                self._marks[mark].set_exception(ConnectionError(f"closed before {mark!r}"))
                self._marks[mark].exception()  # who does not wait for it need not hear of it

    async def opened(self) -> None:
        await self._marks[OPEN]

    async def subscribe(self, frame: bytes) -> None:
        """Send the message; until its answer is here."""
        self._transport.write(frame)
        await self._marks[SUBSCRIBED]

    async def over(self) -> None:
        await self._marks[LAST]

    def close(self) -> None:
        self._transport.close()


async def subscribers(port: int, path: str, count: int) -> list[Subscriber]:
    """So many open sockets."""
    gate = asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()

    async def one() -> Subscriber:
        async with gate:
            _, client = await loop.create_connection(lambda: Subscriber(path), "127.0.0.1", port)
            await client.opened()
            return client

    async with asyncio.timeout(OPEN_SECONDS):
        return await asyncio.gather(*(one() for _ in range(count)))
