"""What `openai`'s client sends to an endpoint: asked once for each path, then repeated.

The law: the client decides where a request goes and which headers it bears (authentication,
identification), and it decides once, since that takes it 0.7 ms and nothing of it depends on the
call. It reaches no network here: its transport is a recorder. Bodies are ours (`options.py`,
`call.py`), the connections are aiohttp's (`clients.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx2
from openai import AsyncOpenAI, Omit
from yarl import URL

from vision.models.catalog import Endpoint

# What depends on the body or the connection, which are not the recorder's. A compressed stream may
# be held back until there is enough to compress: `identity`.
_OF_THE_MESSAGE: Final = frozenset({"host", "connection", "content-length", "accept-encoding"})


@dataclass(frozen=True, slots=True)
class Composed:
    """Where to post a JSON body, and with which headers."""

    url: URL
    headers: Mapping[str, str]


class _Recorder(httpx2.AsyncBaseTransport):
    """Keeps the last request, and answers it with nothing."""

    request: httpx2.Request

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.request = request
        return httpx2.Response(200, json={})


async def compose(endpoint: Endpoint, path: str) -> Composed:
    """What a POST of JSON to `path` of the endpoint is sent with."""
    recorder = _Recorder()
    client = AsyncOpenAI(
        base_url=endpoint.base_url,
        # Never None: openai would take OPENAI_API_KEY and send it to whoever is at base_url.
        api_key=endpoint.api_key or "none",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=recorder),
    )
    key = endpoint.api_key
    headers: dict[str, str | Omit] = {
        # Named in any case: openai would let OPENAI_CUSTOM_HEADERS overrule the key.
        "Authorization": Omit() if key is None else f"Bearer {key}",
        # From the environment, and for OpenAI alone; a key belongs to one project anyway.
        "OpenAI-Organization": Omit(),
        "OpenAI-Project": Omit(),
        # The bounds are ours (`Deadlines`), and not what the client says that they are.
        "X-Stainless-Read-Timeout": Omit(),
    }
    async with client:
        await client.post(path, cast_to=httpx2.Response, body={}, options={"headers": headers})
    sent = recorder.request
    kept = {name: value for name, value in sent.headers.items() if name not in _OF_THE_MESSAGE}
    return Composed(URL(str(sent.url), encoded=True), kept | {"accept-encoding": "identity"})
