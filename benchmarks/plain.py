"""A relay as people write it: a Tornado handler on the `openai` client.

    python -m benchmarks.plain PORT BASE_URL

The law: nothing is tuned. The client makes an object of each chunk, the handler writes that as JSON
and flushes; no log, no key, the event loop that Tornado comes with.
"""

from __future__ import annotations

import asyncio
import json
import sys

from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from tornado.web import Application, RequestHandler


class ChatHandler(RequestHandler):
    """POST /v1/chat/completions."""

    def initialize(self, client: AsyncOpenAI) -> None:
        self._client = client

    async def post(self) -> None:
        answer = await self._client.chat.completions.create(**json.loads(self.request.body))
        if isinstance(answer, AsyncStream):
            await self._relay(answer)
        else:
            self.write(answer.model_dump_json())

    async def _relay(self, chunks: AsyncStream[ChatCompletionChunk]) -> None:
        self.set_header("Content-Type", "text/event-stream")
        async for chunk in chunks:
            self.write(f"data: {chunk.model_dump_json()}\n\n")
            await self.flush()
        self.write("data: [DONE]\n\n")


async def main(port: int, base_url: str) -> None:
    client = AsyncOpenAI(api_key="none", base_url=base_url)
    app = Application([(r"/v1/chat/completions", ChatHandler, {"client": client})])
    app.listen(port, "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
