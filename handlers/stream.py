"""Missions as streams over HTTP: chunked NDJSON, or SSE where the client asks for it.

The law: what goes out is what is in the log, batch by batch, and the next batch is taken only when
the client's socket has taken the last, so a slow client costs a bounded amount of memory. A client
that leaves does not end a mission unless it said so.

While nothing happens, heartbeats keep proxies and clients from giving up: a comment in SSE; a
single space in NDJSON, which JSON parsers skip as white space before the next line's object.

Sources: WHATWG HTML, section 9.2 (server-sent events); nginx, `X-Accel-Buffering`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from handlers.api import MAX_DIGITS, ApiHandler
from vision.errors import VisionError
from vision.missions.events import Batch

# A client that takes nothing for a minute is gone without a word, or may as well be.
WRITE_SECONDS: Final = 60.0

SSE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"


class StreamHandler(ApiHandler):
    """A handler that pushes a mission's events until its end or the client's."""

    _push: asyncio.Task[None] | None = None
    _complete = False
    _dismissed = False
    _sending = False
    _sent_at = 0.0

    async def stream(self, mission_id: str, after: int) -> bool:
        """Push the events behind the cursor. False when the client left before the end."""
        watch = await self.services.missions.watch(mission_id, after)
        if watch.over and self.wants_sse():
            # Nothing is left to tell. 204 is what keeps an EventSource from asking again.
            self.set_status(204)
            return True
        with self.connections.hold(self.owner, self._dismiss):
            # A stream has no end of its own to wait for: it is dismissed, not waited for.
            self.connections.leave(self)
            self._begin(mission_id)
            self._push = asyncio.create_task(self._run(watch.batches))
            await asyncio.wait({self._push})
        if not self._push.cancelled():
            self._push.result()
        return self._complete or self._dismissed

    def _dismiss(self) -> None:
        """The server ends: so does the answer, and the client goes on elsewhere."""
        self._dismissed = True
        if self._push is not None:
            self._push.cancel()

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._push is not None:
            self._push.cancel()

    def wants_sse(self) -> bool:
        """Whether the client asks for server-sent events."""
        return SSE in self.request.headers.get("Accept", "")

    def _begin(self, mission_id: str) -> None:
        self.set_header("Content-Type", SSE if self.wants_sse() else NDJSON)
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Accel-Buffering", "no")
        self.set_header("X-Mission-Id", mission_id)

    async def _run(self, batches: AsyncGenerator[Batch, None]) -> None:
        sse = self.wants_sse()
        try:
            async with aclosing(batches), asyncio.TaskGroup() as group:
                await self._send(b"")  # the headers, before there is any event
                heartbeat = group.create_task(self._beat(b": heartbeat\n\n" if sse else b" "))
                async for batch in batches:
                    await self._send(batch.sse if sse else batch.ndjson)
                heartbeat.cancel()
                self._complete = True
        except* (StreamClosedError, TimeoutError):
            # Gone, or as good as gone: free the connection. The mission goes on.
            self._cut_off()
        except* VisionError as errors:
            # The mission expired while it was watched: no proper end, since there was none.
            self.log_exception(None, errors.exceptions[0], None)
            self._cut_off()

    def _cut_off(self) -> None:
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection) and connection.stream is not None:
            connection.stream.close()

    async def _send(self, frame: bytes) -> None:
        if frame:
            self.write(frame)
        self._sending = True
        async with asyncio.timeout(WRITE_SECONDS):
            await self.flush()
        self._sending = False
        self._sent_at = asyncio.get_running_loop().time()

    async def _beat(self, heartbeat: bytes) -> None:
        interval = self.services.settings.ping_interval
        while True:
            due = self._sent_at + interval - asyncio.get_running_loop().time()
            if due > 0:
                await asyncio.sleep(due)
            elif self._sending:
                # The client is still taking the last batch. Tornado knows of one flush at a time.
                await asyncio.sleep(interval)
            else:
                await self._send(heartbeat)


class StreamGenerateHandler(StreamHandler):
    """POST /api/completion/st/generate: start a mission and stream it in the answer."""

    async def post(self) -> None:
        body = self.json_body("stream-generate")
        mission_id = await self.services.missions.start(
            body["promptList"],
            base_mission_id=body.get("baseMissionId"),
            key=self.idempotency_key(),
        )
        complete = await self.stream(mission_id, 0)
        if not complete and body.get("onDisconnect") == "cancel":
            await self.services.missions.cancel(mission_id, None)


class StreamMissionHandler(StreamHandler):
    """GET /api/completion/st/mission: watch a mission from a cursor."""

    async def authenticate(self) -> str:
        """A key, or a ticket where a browser's EventSource cannot send one."""
        ticket = self.get_query_argument("ticket", None)
        if ticket is None:
            return await super().authenticate()
        return await self.services.tickets.redeem(ticket)

    async def get(self) -> None:
        await self.stream(self.query_text("missionId"), self._cursor())

    def _cursor(self) -> int:
        """What the client has seen. An EventSource that reconnects keeps its address, with the
        first cursor in it, and says in `Last-Event-ID` how far it has come since.
        """
        last = self.request.headers.get("Last-Event-ID", "")
        if last.isascii() and last.isdigit() and len(last) <= MAX_DIGITS:
            return int(last)
        return self.query_count("after", 0)
