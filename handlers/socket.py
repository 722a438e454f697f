"""Missions over WebSocket: several on one connection, JSON messages with a `type`.

The law: every message of the client gets an answer, with its `requestId`; a wrong message gets an
error message and leaves the connection open. Each subscription is a task of the connection, and
ends with it. Events go out as they are in the log, in order for each mission.

    client: generate, subscribe, unsubscribe, cancel, watchOrders, ping (schemas/socket.schema.json)
    server: accepted, subscribed, unsubscribed, ended, watching, pong, error, the missions' events,
            and `order` when an order of a watched buyer changes

Source of the close codes: RFC 6455, section 7.4.2 (3000 to 3999 are for libraries and
applications).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final, cast

import msgspec
import structlog
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from handlers.answers import describe
from handlers.completion import cancelled
from handlers.context import Context
from handlers.outlet import Outlet, Sink
from handlers.refusals import RefusingHandler
from handlers.validation import parse_object
from vision.errors import InvalidRequest, Overloaded, UnknownMission, VisionError
from vision.missions.events import text_frame
from vision.missions.watch import Watch

_logger = structlog.get_logger(__name__)

# Each is a task and a bounded queue; a page that shows more at once is hard to imagine.
MAX_SUBSCRIPTIONS: Final = 256

# A look and a ping each `ping-interval`: the third silent look comes after two unanswered pings.
MOST_SILENT_LOOKS: Final = 2

# Codes from 3000 to 3499 ask the client to connect again; those from 3500 to 3999 would be final.
GOING_AWAY: Final = 3001

Message = Mapping[str, Any]


class SocketHandler(RefusingHandler, WebSocketHandler):
    """GET /api/completion/ws: one client's connection."""

    def initialize(self, context: Context) -> None:
        self.services = context.services
        self.validators = context.validators
        self.connections = context.connections
        self._held = ExitStack()
        self._buyers: set[str] = set()
        self._silent_looks = 0  # in a row
        self._looked_at = 0.0
        self._next_look: asyncio.TimerHandle | None = None
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._cancel_on_close: set[str] = set()
        self._answers: dict[str, Callable[[Message], Awaitable[Message | None]]] = {
            "generate": self._generate,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "cancel": self._cancel,
            "watchOrders": self._watch_orders,
            "ping": self._ping,
        }

    async def prepare(self) -> None:
        ticket = self.get_query_argument("ticket", None)
        if ticket is None:
            self.owner = self.services.keys.check(self.request.headers.get("Authorization"))
        self._refuse_plain_requests()
        if ticket is not None:
            self.owner = await self.services.tickets.redeem(ticket)
        self._held.enter_context(self.connections.hold(self.owner, self._dismiss))

    def _refuse_plain_requests(self) -> None:
        """In the documented shape, and before a ticket is used up."""
        if self.request.headers.get("Upgrade", "").lower() != "websocket":
            raise InvalidRequest("this address speaks WebSocket; ask with `Upgrade: websocket`")

    def check_origin(self, origin: str) -> bool:
        """Tornado asks this of other origins only; the answer has the documented shape."""
        raise HTTPError(403)

    def on_finish(self) -> None:
        # Tornado calls this after the handshake too, when the connection has just begun.
        if self.get_status() != 101:
            self._held.close()

    def _dismiss(self) -> None:
        """The server ends: the client is to connect again, to any process."""
        self.close(GOING_AWAY, "the server is going away; connect again")

    async def on_message(self, message: str | bytes) -> None:
        self._heard()
        request_id: Any = None
        try:
            document = _parse(message)
            request_id = document.get("requestId")
            self.validators.check("socket", document)
            self.validators.check(f"socket#{document['type']}", document)
            answer = await self._answers[document["type"]](document)
        except Exception as error:
            if not isinstance(error, VisionError):
                _logger.exception("socket_message_crashed")
            answer = {"type": "error", **describe(error)}
        if answer is not None:
            await self._send({**answer, "requestId": request_id})

    # --- whether the client is there -------------------------------------------------------------

    def open(self, *_: str) -> None:
        self._outlet = Outlet(cast("WebSocketProtocol13", self.ws_connection).stream)
        self._look_later()

    def on_pong(self, _: bytes) -> None:
        self._heard()

    def _heard(self) -> None:
        self._silent_looks = 0

    def _look(self) -> None:
        """Let go of a client that answers no pings. One that is still taking what was sent to it
        cannot have seen the ping behind it: `WRITE_SECONDS` is for that one.

        Looks are counted, not seconds: a process that was frozen has yet to read the answers.
        """
        if self._outlet.blocked or self._outlet.sent_at > self._looked_at:
            self._heard()
        self._silent_looks += 1
        if self._silent_looks > MOST_SILENT_LOOKS:
            self._outlet.close()
        else:
            self._look_later()

    def _look_later(self) -> None:
        loop, interval = asyncio.get_running_loop(), self.services.settings.ping_interval
        self._looked_at = loop.time()
        self._next_look = loop.call_later(interval, self._look)

    def on_close(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        self._held.close()
        self.services.background.start(self._leave(), name="leave socket")

    async def _leave(self) -> None:
        """End the subscriptions, and the missions that were to end with their client."""
        for mission_id in list(self._subscriptions):
            await self._drop(mission_id)
        for mission_id in self._cancel_on_close:
            try:
                await self.services.missions.cancel(mission_id, None)
            except UnknownMission:
                continue  # it ended, and expired, long ago

    # --- the messages of a client ----------------------------------------------------------------

    async def _generate(self, message: Message) -> None:
        self._check_room()
        mission_id, watch = await self.services.missions.start_watched(
            message["promptList"], base_mission_id=message.get("baseMissionId")
        )
        if message.get("onDisconnect") == "cancel":
            self._cancel_on_close.add(mission_id)
        self._follow(mission_id, watch)
        request_id = message.get("requestId")
        await self._send({"type": "accepted", "requestId": request_id, "missionId": mission_id})

    async def _subscribe(self, message: Message) -> None:
        self._check_room()
        mission_id, after = message["missionId"], message.get("after", 0)
        watch = await self.services.missions.watch(mission_id, int(after))
        await self._drop(mission_id)
        self._follow(mission_id, watch)
        request_id = message.get("requestId")
        answer = {"type": "subscribed", "requestId": request_id, "missionId": mission_id}
        await self._send(answer | {"after": after, "over": watch.over})

    async def _unsubscribe(self, message: Message) -> Message:
        await self._drop(message["missionId"])
        return {"type": "unsubscribed", "missionId": message["missionId"]}

    async def _cancel(self, message: Message) -> Message:
        mission_id, node_id = message["missionId"], message.get("id")
        progress = await self.services.missions.cancel(mission_id, node_id)
        return {"type": "ended", **cancelled(mission_id, node_id, progress)}

    async def _watch_orders(self, message: Message) -> Message:
        uid = message["uid"]
        if uid not in self._buyers:
            if len(self._buyers) >= MAX_SUBSCRIPTIONS:
                raise Overloaded(f"a connection watches at most {MAX_SUBSCRIPTIONS} buyers")
            self._held.enter_context(self.services.news.watch(uid, self._hear_order))
            self._buyers.add(uid)
        return {"type": "watching", "uid": uid}

    def _hear_order(self, news: Message) -> None:
        self.services.background.start(self._send({"type": "order", **news}), name="order news")

    async def _ping(self, message: Message) -> Message:
        return {"type": "pong"}

    # --- subscriptions ---------------------------------------------------------------------------

    def _check_room(self) -> None:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise Overloaded(
                f"a connection holds at most {MAX_SUBSCRIPTIONS} subscriptions; end one first"
            )

    def _follow(self, mission_id: str, watch: Watch) -> None:
        """Begin to push; the answer that is sent before the next wait goes out before it."""
        push = asyncio.create_task(self._push(mission_id, watch), name=f"push {mission_id}")
        # Not in the task itself: one that is cancelled before its first step never runs.
        push.add_done_callback(lambda _: watch.close())
        self._subscriptions[mission_id] = push

    async def _push(self, mission_id: str, watch: Watch) -> None:
        try:
            with self.connections.subscribe(self.owner):
                await watch.push(Sink(self._outlet, lambda batch: batch.websocket))
        except VisionError as error:
            # Too many, or the mission expired while it was watched.
            await self._send({"type": "error", **describe(error), "missionId": mission_id})
            self._cancel_on_close.discard(mission_id)  # it has ended
        except (StreamClosedError, TimeoutError):
            # Gone, or as good as gone: free the connection. The mission goes on.
            self._outlet.close()
        finally:
            if self._subscriptions.get(mission_id) is asyncio.current_task():
                del self._subscriptions[mission_id]

    async def _drop(self, mission_id: str) -> None:
        push = self._subscriptions.pop(mission_id, None)
        if push is not None:
            push.cancel()
            await asyncio.wait({push})

    async def _send(self, message: Message) -> None:
        """Written at once; then waits until the client has taken it."""
        if not self._outlet.put(text_frame(msgspec.json.encode(message))):
            with suppress(StreamClosedError, TimeoutError):  # `on_close` does what there is to do
                await self._outlet.drained()


def _parse(message: str | bytes) -> dict[str, Any]:
    if isinstance(message, bytes):
        raise InvalidRequest("a message is text, not binary")
    return parse_object(message)
