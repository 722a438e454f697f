"""A client's socket, as that to which events are written: at once while it takes them.

The law: what is written goes out whole and in order. While nothing waits in Tornado's buffer it
goes straight to the kernel, since Tornado's own write costs as much again; what the kernel does not
take waits in the buffer, and whoever writes then waits until it has been taken. A client that takes
nothing for `WRITE_SECONDS` is gone without a word, or may as well be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tornado.iostream import IOStream, StreamClosedError

from vision.missions.events import Batch

WRITE_SECONDS: Final = 60.0


class Outlet:
    """The sending side of one connection. `sent_at` is when its socket last took something."""

    def __init__(self, stream: IOStream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._pending: asyncio.Future[None] | None = None  # of all that was written until now
        self.sent_at = self._loop.time()

    @property
    def blocked(self) -> bool:
        """Whether the client still has to take what was written before."""
        return self._stream.writing()

    def put(self, data: bytes) -> bool:
        """Write; False when the socket has not taken all of it, and `drained` is to be awaited.

        A connection that is lost is one that takes nothing: `drained` tells.
        """
        taken = 0 if self._stream.writing() else self._send(data)
        if taken == len(data):
            self.sent_at = self._loop.time()
            return True
        try:
            self._pending = self._stream.write(memoryview(data)[taken:])
        except StreamClosedError as closed:
            self._pending = self._loop.create_future()
            self._pending.set_exception(closed)
            self._pending.exception()  # seen: it may be that nobody waits
        return False

    def follow(self, written: asyncio.Future[None]) -> bool:
        """Go on behind something that Tornado writes itself; as `put` of it would answer."""
        self._pending = written
        if not written.done() or written.exception() is not None:
            return False
        self.sent_at = self._loop.time()
        return True

    async def drained(self) -> None:
        """Until all is taken. Raises StreamClosedError and TimeoutError."""
        if self._pending is None:
            return
        # Not `wait_for`, which would cancel what others of the same connection wait for too.
        done, _ = await asyncio.wait({self._pending}, timeout=WRITE_SECONDS)
        if not done:
            raise TimeoutError
        self._pending.result()
        self.sent_at = self._loop.time()

    def close(self) -> None:
        """Drop the connection."""
        self._stream.close()

    def _send(self, data: bytes) -> int:
        if self._stream.closed():
            return 0
        try:
            return self._stream.socket.send(data)
        except OSError:  # full, which Tornado waits out, or lost, which Tornado finds by itself
            return 0


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a subscriber's batches go: an outlet, in the form that its transport gives them."""

    outlet: Outlet
    frame: Callable[[Batch], bytes]

    def write(self, batch: Batch) -> bool:
        return self.outlet.put(self.frame(batch))

    async def drained(self) -> None:
        await self.outlet.drained()
