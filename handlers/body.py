"""The body of a streamed answer: chunks of HTTP, and what is sent while there is nothing to tell.

The law: the head of an answer goes out with its first batch, in one write, and by itself when that
does not come soon. So a hundred missions that begin at once call their models before they tell a
hundred clients that they have begun, and a short answer costs a write less.

While nothing happens, heartbeats keep proxies and clients from giving up: a comment in SSE; a
single space in NDJSON, which JSON parsers skip as white space before the next line's object.

Sources: WHATWG HTML, section 9.2 (server-sent events); RFC 9112, section 7.1 (chunks).
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from tornado.http1connection import HTTP1Connection
from tornado.web import RequestHandler

from handlers.outlet import Outlet
from vision.missions.events import Batch

# A person does not see it; a model that is near takes 20 to 80 ms for its first token.
HEAD_SECONDS: Final = 0.1


class StreamedBody:
    """Where the batches of a streamed answer go: a `Sink`. For one event loop; `close` it.

    `sse`: as server-sent events, else as NDJSON. `interval`: seconds between two heartbeats.
    """

    def __init__(self, handler: RequestHandler, *, sse: bool, interval: float) -> None:
        stream = cast("HTTP1Connection", handler.request.connection).stream
        # A small write is not to wait for the acknowledgement of the one before it.
        stream.set_nodelay(True)
        self._handler = handler
        self._outlet = Outlet(stream)
        self._sse = sse
        # Tornado, too, sends chunks to clients of HTTP/1.1 only.
        self._chunked = handler.request.version == "HTTP/1.1"
        self._loop = asyncio.get_running_loop()
        self._head: asyncio.Handle | None = self._loop.call_later(HEAD_SECONDS, self._begin)
        self._interval = interval
        self._beats = self._loop.call_later(interval, self._beat)

    @property
    def begun(self) -> bool:
        """Whether the head has gone out, so that the status cannot change any more."""
        return self._head is None

    def write(self, batch: Batch) -> bool:
        data = batch.sse if self._sse else batch.ndjson
        if self._head is None:
            return self._put(data)
        self._head.cancel()
        self._handler.write(data)
        return self._begin()

    async def drained(self) -> None:
        await self._outlet.drained()

    def close(self) -> None:
        """Let go of the timers; what is left is the handler's to finish, head included."""
        self._beats.cancel()
        if self._head is not None:
            self._head.cancel()

    def _begin(self) -> bool:
        """Send the head, with what the handler has been given so far."""
        self._head = None
        return self._outlet.follow(self._handler.flush())

    def _put(self, data: bytes) -> bool:
        return self._outlet.put(chunk(data) if self._chunked else data)

    def _beat(self) -> None:
        """Send a heartbeat when nothing was sent for long; look again when that may be so."""
        due = self._outlet.sent_at + self._interval
        if self._loop.time() >= due:
            if self.begun and not self._outlet.blocked:  # else it still takes what was sent before
                self._put(b": heartbeat\n\n" if self._sse else b" ")
            due = self._loop.time() + self._interval
        self._beats = self._loop.call_at(due, self._beat)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; nothing for no data, since an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
