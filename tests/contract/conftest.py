"""A whole server in the test's own process, its upstream scripted, its Redis real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tornado.web
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.ioloop import IOLoop

from handlers.app import make_app
from handlers.connections import Connections, Limits
from tests.upstream import ScriptedUpstream
from vision.children import DataFolder
from vision.services import Services, open_services
from vision.settings import Settings

KEY = {"Authorization": "Vision chat"}

# A mission of 2,000 nodes takes some seconds; in debug mode, on a busy machine, many times that.
REQUEST_SECONDS = 60

MODELS = """
[upstreams.scripted]
base_url = "{base_url}"
max_concurrency = 16

[models."gpt-3.5-turbo"]
upstream = "scripted"
name = "scripted-chat"
kind = "chat"

[models."text-davinci-003"]
upstream = "scripted"
name = "scripted-text"
kind = "completion"

[models."text-davinci-002"]
upstream = "scripted"
name = "scripted-text"
kind = "completion"
"""


@pytest.fixture
def upstream(io_loop: IOLoop) -> Iterator[ScriptedUpstream]:
    """The language model: a scripted server on a real socket."""
    scripted = ScriptedUpstream()

    async def start() -> None:
        scripted.start()

    io_loop.run_sync(start)
    yield scripted
    io_loop.run_sync(scripted.stop)


@pytest.fixture
def settings(
    redis_url: str, data_dir: Path, tmp_path: Path, upstream: ScriptedUpstream
) -> Settings:
    """Short waits, so that tests of them are short."""
    models = tmp_path / "models.toml"
    models.write_text(MODELS.format(base_url=upstream.base_url))
    return Settings(
        data_dir=data_dir, redis_url=redis_url, models=models, ping_interval=0.2, max_body=1_000_000
    )


@pytest.fixture
def services(io_loop: IOLoop, settings: Settings, base_url: str) -> Iterator[Services]:
    """All parts of a server, running."""
    stack = AsyncExitStack()
    folder = DataFolder(settings.data_dir)

    async def start() -> tuple[Services, asyncio.Task[None]]:
        opened = await stack.enter_async_context(open_services(settings, folder, {}, base_url))
        return opened, asyncio.create_task(opened.run())

    async def stop() -> None:
        run.cancel()
        await asyncio.wait({run})
        await stack.aclose()

    opened, run = io_loop.run_sync(start)
    yield opened
    io_loop.run_sync(stop)
    folder.close()


@pytest.fixture
def app(services: Services) -> tornado.web.Application:
    return make_app(services, Connections(Limits(connections=100, subscriptions=100)))


@dataclass(frozen=True)
class Api:
    """A client of the API that asserts nothing."""

    http: AsyncHTTPClient
    base_url: str

    async def get(self, path: str, **headers: str) -> HTTPResponse:
        return await self.http.fetch(self.base_url + path, headers=KEY | headers, raise_error=False)

    async def post(self, path: str, body: Any, **headers: str) -> HTTPResponse:
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        return await self.http.fetch(
            self.base_url + path,
            method="POST",
            body=text,
            headers=KEY | headers,
            raise_error=False,
            request_timeout=REQUEST_SECONDS,
        )

    async def generate(self, prompt_list: Sequence[dict[str, Any]]) -> str:
        """Start a mission, return its id."""
        response = await self.post("/api/completion/generate", {"promptList": prompt_list})
        assert response.code == 200, response.body
        return json.loads(response.body)["data"]["missionId"]

    async def stream(self, prompt_list: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run a mission over NDJSON, return its events."""
        response = await self.post("/api/completion/st/generate", {"promptList": prompt_list})
        assert response.code == 200, response.body
        return events_of(response.body)

    async def finished(self, mission_id: str) -> dict[str, Any]:
        """The answer of mission-query, once the mission has ended."""
        await self.get(f"/api/completion/st/mission?missionId={mission_id}")
        response = await self.get(f"/api/completion/mission-query?missionId={mission_id}")
        return json.loads(response.body)


@pytest.fixture
def api(http_client: AsyncHTTPClient, base_url: str) -> Api:
    return Api(http_client, base_url)


def events_of(body: bytes) -> list[dict[str, Any]]:
    """The events of an NDJSON body; heartbeats are white space before a line's object."""
    return [json.loads(line) for line in body.splitlines()]


def chat(id_: str, prompt: str, *needs: str, **more: Any) -> dict[str, Any]:
    """A node on the chat model."""
    return {
        "id": id_,
        "mid": "gpt-3.5-turbo",
        "prompt": prompt,
        "dependenceIdList": [*needs],
        **more,
    }


def text(id_: str, prompt: str, *needs: str, **more: Any) -> dict[str, Any]:
    """A node on the completion model."""
    return chat(id_, prompt, *needs, **more) | {"mid": "text-davinci-003"}


def sse_of(body: bytes) -> list[tuple[int, dict[str, Any]]]:
    """The numbers and events of an SSE body; comments are left out."""
    events = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if fields:
            events.append((int(fields["id"]), json.loads(fields["data"])))
    return events


def contents_of(events: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The text of each node, as a client puts it together."""
    texts: dict[str, str] = {}
    for event in events:
        if event["type"] == "token":
            texts[event["id"]] = texts.get(event["id"], "") + event["choices"][0]["text"]
        elif event["type"] == "restarted":
            texts[event["id"]] = ""
    return texts
