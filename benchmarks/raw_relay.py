"""The least that a relay on Tornado does: the upstream's bytes in, the same bytes out.

    python -m benchmarks.raw_relay PORT BASE_URL

The law: nothing is understood and nothing is kept: no log, no key, no chunk that is looked into.
What one read of aiohttp brought is one write and one flush, on uvloop. So it is what our server
would cost if it did nothing of its own.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import uvloop
from aiohttp import ClientSession, TCPConnector
from tornado.web import Application, RequestHandler


class ChatHandler(RequestHandler):
    """POST /v1/chat/completions."""

    def initialize(self, session: ClientSession, base_url: str) -> None:
        self._session = session
        self._url = f"{base_url}/chat/completions"

    async def post(self) -> None:
        sent = {"Content-Type": "application/json"}
        async with self._session.post(self._url, data=self.request.body, headers=sent) as answer:
            self.set_status(answer.status)
            self.set_header("Content-Type", answer.content_type)
            async for part in answer.content.iter_any():
                self.write(part)
                await self.flush()


async def serve(port: int, base_url: str) -> None:
    # No limit: each stream has its connection, as at the others.
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        given = {"session": session, "base_url": base_url}
        app = Application([(r"/v1/chat/completions", ChatHandler, given)])
        app.listen(port, "127.0.0.1")
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(serve(int(sys.argv[1]), sys.argv[2]))
