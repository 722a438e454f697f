"""A scripted OpenAI-compatible server on a real socket, for tests.

The law: without a script every answer follows from the prompt ("echo: " and its words), so that a
test can say what must come. A script (`Reply`) is chosen by a text in the prompt, with `on` in the
same process, or written into the prompt itself as a directive for a server that runs in another:
`[[tokens=20 delay=0.05]]`, the fields of `Reply` by name, and `fail=2`: the first two requests
with this prompt get 503. What clients did is recorded: requests, early closes, how many at once.

As a process: `python -m tests.upstream --port 0` prints its port and serves until it is ended.
`GET /seen` tells another process what was recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.script import NEVER, Answer, Reply, Request, directive, echo, prompt_of

__all__ = ["NEVER", "Reply", "Request", "ScriptedUpstream", "echo"]


class ScriptedUpstream:
    """The server and what it has seen. Everything on one event loop."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.closed: list[Request] = []  # whose client left before the end, in order of leaving
        self.connections = 0
        self.running = 0
        self.most_running = 0
        self._scripts: list[tuple[str, list[Reply]]] = []
        self._failed: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._port = 0
        self._server: HTTPServer | None = None

    def start(self, port: int = 0) -> None:
        """Binds and listens; needs a running event loop."""
        sockets = bind_sockets(port, "127.0.0.1")
        self._port = sockets[0].getsockname()[1]
        app = Application(
            [
                (r"/v1/(chat/completions|completions)", _Completions, {"upstream": self}),
                (r"/seen", _Seen, {"upstream": self}),
            ]
        )
        self._server = _CountingServer(app, self)
        self._server.add_sockets(sockets)

    async def stop(self) -> None:
        """Closes the socket and every connection; running answers end."""
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
            await self.wait(lambda: self.running == 0, 5)

    @property
    def base_url(self) -> str:
        """Up to and with `/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    def on(self, text: str, *replies: Reply) -> None:
        """For prompts that contain `text`: these replies in turn, then the last one again."""
        self._scripts.insert(0, (text, list(replies)))

    async def wait(self, condition: Callable[[], bool], timeout: float) -> None:
        """Until `condition` holds; it is looked at whenever something was recorded."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(condition)

    async def wait_requests(self, number: int, timeout: float = 2) -> None:
        """Until so many requests have come."""
        await self.wait(lambda: len(self.requests) >= number, timeout)

    async def wait_closed(self, number: int, timeout: float = 1) -> None:
        """Until so many clients have left early."""
        await self.wait(lambda: len(self.closed) >= number, timeout)

    def reply_to(self, prompt: str) -> Reply:
        """The script for a prompt; takes it from its queue."""
        for text, replies in self._scripts:
            if text in prompt:
                return replies.pop(0) if len(replies) > 1 else replies[0]
        fields = directive(prompt)
        fails = fields.pop("fail", 0)
        if self._failed[prompt] < fails:
            self._failed[prompt] += 1
            return Reply(status=503, error={"message": "scripted failure"})
        return Reply(**fields)

    async def record(self, change: Callable[[], None]) -> None:
        """Makes a change that someone may wait for."""
        async with self._changed:
            change()
            self._changed.notify_all()

    def began(self, request: Request) -> None:
        """A request has come."""
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)

    def ended(self, request: Request, *, left: bool) -> None:
        """It was answered, or its client left."""
        self.running -= 1
        if left:
            self.closed.append(request)


class _CountingServer(HTTPServer):
    def initialize(self, app: Application, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        super().initialize(app)

    def handle_stream(self, stream: Any, address: Any) -> None:
        self._upstream.connections += 1
        super().handle_stream(stream, address)


class _ClientLeft(Exception):
    pass


class _Seen(RequestHandler):
    def initialize(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream

    def get(self) -> None:
        upstream = self._upstream
        self.write(
            {
                "prompts": [request.prompt for request in upstream.requests],
                "closed": [request.prompt for request in upstream.closed],
                "running": upstream.running,
                "mostRunning": upstream.most_running,
            }
        )


class _Completions(RequestHandler):
    def initialize(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._left = asyncio.Event()

    def on_connection_close(self) -> None:
        self._left.set()

    async def post(self, path: str) -> None:
        body = json.loads(self.request.body)
        prompt = prompt_of(body)
        headers = {name.lower(): value for name, value in self.request.headers.get_all()}
        request = Request(path, headers, body, prompt, time.time())
        await self._upstream.record(lambda: self._upstream.began(request))
        left = False
        try:
            await self._answer(self._upstream.reply_to(prompt), request)
        except (_ClientLeft, StreamClosedError):
            left = True
        finally:
            await self._upstream.record(lambda: self._upstream.ended(request, left=left))

    async def _answer(self, reply: Reply, request: Request) -> None:
        await self._pause(reply.before_headers)
        self.set_status(reply.status)
        for name, value in reply.headers.items():
            self.set_header(name, value)
        answer = Answer(reply, request)
        if answer.refused is not None:
            self.set_status(400)
            self.write({"error": {"message": answer.refused, "code": 400}})
        elif reply.body is not None:
            self.write(reply.body)
        elif reply.status != 200:
            self.write({"error": reply.error or {"message": "scripted"}})
        elif request.body.get("stream"):
            await self._stream(reply, answer)
        else:
            self.write(answer.whole())

    async def _stream(self, reply: Reply, answer: Answer) -> None:
        if "Content-Type" not in reply.headers:
            self.set_header("Content-Type", "text/event-stream")
        await self.flush()
        self.request.connection.stream.set_nodelay(True)
        await self._pause(reply.before_first)
        writes = answer.writes() if reply.writes is None else reply.writes
        for number, write in enumerate(writes):
            await self._pause(reply.delay if number else 0)
            await self._send(write, reply.split)
        if reply.hang:
            await self._pause(NEVER)
        if reply.cut:
            self.detach().close()

    async def _send(self, data: bytes, size: int | None) -> None:
        for start in range(0, len(data), size or len(data)):
            if size and start:
                await self._pause(0.001)  # lets the piece before leave as a packet of its own
            self.write(data[start : start + (size or len(data))])
            await self.flush()

    async def _pause(self, seconds: float) -> None:
        if seconds:
            try:
                bound = None if seconds == NEVER else seconds
                await asyncio.wait_for(self._left.wait(), bound)
            except TimeoutError:
                return
        if self._left.is_set():
            raise _ClientLeft


async def _serve(port: int) -> None:
    upstream = ScriptedUpstream()
    upstream.start(port)
    sys.stdout.write(f"{upstream.port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible server.")
    parser.add_argument("--port", type=int, default=0, help="0 is any free one")
    asyncio.run(_serve(parser.parse_args().port))
