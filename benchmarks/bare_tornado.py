"""A Tornado server that does nothing but answer: what is left of any server when its work is free.

    python -m benchmarks.bare_tornado PORT PING_SECONDS

The law: it sends the bytes of the one that it is compared with, which it was given before, and runs
on the same event loop, uvloop, so that the loop is not what is compared.

    PUT  /answer            the body that every address under /api/ answers from now on
    GET  /write_message     a WebSocket whose messages are written as Tornado's manual shows
    GET  /encoded_once      a WebSocket whose messages are framed once for all
    POST /replay?gap=20     each line of the body is a message to all sockets, so many ms apart
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import uvloop
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from benchmarks.installed import ROOT
from benchmarks.processes import Running, free_port

PING_SECONDS = 15.0  # the default of our server

# A replay begins when who asked for it has its answer and has looked at the clock.
HEAD_START = 0.5

# Connections that wait to be accepted: as many as at our server.
BACKLOG = 1024


class Line:
    """A message, framed when it is first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def frame(self) -> bytes:
        return server_frame(self.text.encode())


class Kept:
    """What was given, and who listens."""

    def __init__(self) -> None:
        self.answer = b""
        self.pushes: set[Callable[[Line], None]] = set()
        self.replay: asyncio.Task[None] | None = None


class KeepHandler(RequestHandler):
    """PUT /answer."""

    def initialize(self, kept: Kept) -> None:
        self.kept = kept

    def put(self) -> None:
        self.kept.answer = self.request.body


class AnswerHandler(RequestHandler):
    """Any address under /api/."""

    def initialize(self, kept: Kept) -> None:
        self.kept = kept

    def get(self) -> None:
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(self.kept.answer)

    def post(self) -> None:
        self.get()


class Socket(WebSocketHandler):
    """A socket that is written to as people do."""

    def initialize(self, kept: Kept) -> None:
        self.kept = kept

    def open(self, *_: str) -> None:
        self.kept.pushes.add(self.push)

    def on_message(self, message: str | bytes) -> None:
        self.write_message('{"type":"subscribed"}')

    def on_close(self) -> None:
        self.kept.pushes.discard(self.push)

    def push(self, line: Line) -> None:
        self.write_message(line.text)


class OnceSocket(Socket):
    """A socket whose stream takes a frame that was made for all."""

    def push(self, line: Line) -> None:
        stream = getattr(self.ws_connection, "stream", None)
        if isinstance(stream, IOStream):
            stream.write(line.frame)


def server_frame(payload: bytes) -> bytes:
    """A text frame of a server (RFC 6455, section 5.2), of less than 64 KiB."""
    if len(payload) <= 125:
        return bytes([0x81, len(payload)]) + payload
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


class ReplayHandler(RequestHandler):
    """POST /replay: answers at once, and goes on by itself."""

    def initialize(self, kept: Kept) -> None:
        self.kept = kept

    def post(self) -> None:
        lines = self.request.body.decode().splitlines()
        gap = float(self.get_query_argument("gap")) / 1e3
        self.kept.replay = asyncio.create_task(replay(self.kept, lines, gap))


async def replay(kept: Kept, lines: list[str], gap: float) -> None:
    """Send each line to all, at the pace of the one that it is compared with."""
    loop = asyncio.get_running_loop()
    due = loop.time() + HEAD_START
    for text in lines:
        due += gap
        await asyncio.sleep(due - loop.time())
        line = Line(text)
        for push in list(kept.pushes):
            push(line)


def make_app(ping: float) -> Application:
    kept: dict[str, Any] = {"kept": Kept()}
    return Application(
        [
            (r"/answer", KeepHandler, kept),
            (r"/api/.*", AnswerHandler, kept),
            (r"/write_message", Socket, kept),
            (r"/encoded_once", OnceSocket, kept),
            (r"/replay", ReplayHandler, kept),
        ],
        websocket_ping_interval=ping,
    )


def bare(folder: Path, ping: float = PING_SECONDS) -> Running:
    """Start one on a free port."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.bare_tornado", str(port), str(ping)]
    return Running(argv, port, folder / "bare.log", folder=ROOT)


async def serve(port: int, ping: float) -> None:
    server = HTTPServer(make_app(ping))
    server.add_sockets(bind_sockets(port, "127.0.0.1", backlog=BACKLOG))
    await asyncio.Event().wait()


def main() -> None:
    _, port, ping = sys.argv
    with suppress(KeyboardInterrupt):
        uvloop.run(serve(int(port), float(ping)))


if __name__ == "__main__":
    main()
