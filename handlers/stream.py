"""Missions as streams over HTTP: chunked NDJSON, or SSE where the client asks for it.

The law: what goes out is what is in the log, batch by batch, and no batch follows one that the
client's socket has not taken, so a slow client costs a bounded amount of memory. A client that
leaves does not end a mission unless it said so.

Sources: WHATWG HTML, section 9.2 (server-sent events, and the 204 that ends them); nginx,
`X-Accel-Buffering`.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Final, cast

from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream, StreamClosedError

from handlers.api import MAX_DIGITS, ApiHandler
from handlers.body import StreamedBody
from vision.errors import VisionError
from vision.missions.watch import Watch

SSE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"


class StreamHandler(ApiHandler):
    """A handler that pushes a mission's events until its end or the client's."""

    _push: asyncio.Task[None] | None = None
    _complete = False
    _dismissed = False

    async def stream(self, mission_id: str, watch: Watch) -> bool:
        """Push the events of the watch. False when the client left before the end."""
        with closing(watch):
            if watch.over and self.wants_sse():
                # Nothing is left to tell. 204 is what keeps an EventSource from asking again.
                self.set_status(204)
                return True
            if self._socket.closed():
                return False  # it left while the mission was accepted or looked for
            with self.connections.hold(self.owner, self._dismiss):
                # A stream has no end of its own to wait for: it is dismissed, not waited for.
                self.connections.leave(self)
                self._begin(mission_id)
                self._push = asyncio.create_task(self._run(watch))
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

    async def _run(self, watch: Watch) -> None:
        interval = self.services.settings.ping_interval
        with closing(StreamedBody(self, sse=self.wants_sse(), interval=interval)) as body:
            try:
                await watch.push(body)
                self._complete = True
            except (StreamClosedError, TimeoutError):
                # Gone, or as good as gone: free the connection. The mission goes on.
                self._socket.close()
            except VisionError as error:
                if not body.begun:
                    raise
                # The mission expired while it was watched: no proper end, since there was none.
                self.log_exception(None, error, None)
                self._socket.close()

    def on_finish(self) -> None:
        super().on_finish()
        if self._push is not None and self.request.version != "HTTP/1.1":
            # A body without chunks ends with its connection, even where that was to be kept.
            self._socket.close()

    @property
    def _socket(self) -> IOStream:
        return cast("HTTP1Connection", self.request.connection).stream


class StreamGenerateHandler(StreamHandler):
    """POST /api/completion/st/generate: start a mission and stream it in the answer."""

    async def post(self) -> None:
        body = self.json_body("stream-generate")
        mission_id, watch = await self.services.missions.start_watched(
            body["promptList"],
            base_mission_id=body.get("baseMissionId"),
            key=self.idempotency_key(),
        )
        complete = await self.stream(mission_id, watch)
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
        mission_id = self.query_text("missionId")
        await self.stream(
            mission_id, await self.services.missions.watch(mission_id, self._cursor())
        )

    def _cursor(self) -> int:
        """What the client has seen. An EventSource that reconnects keeps its address, with the
        first cursor in it, and says in `Last-Event-ID` how far it has come since.
        """
        last = self.request.headers.get("Last-Event-ID", "")
        if last.isascii() and last.isdigit() and len(last) <= MAX_DIGITS:
            return int(last)
        return self.query_count("after", 0)
