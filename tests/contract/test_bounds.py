"""What one client may cost: slow readers, huge prompts, huge messages, too many at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from tornado.httpclient import AsyncHTTPClient

from tests.contract.conftest import KEY, Api, chat
from tests.upstream import NEVER, Reply, ScriptedUpstream
from vision.missions import queue
from vision.models import single
from vision.services import Services

pytestmark = pytest.mark.gen_test


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
async def test_a_reader_that_pauses_longer_than_the_heartbeat_still_gets_everything(
    api: Api, base_url: str, upstream: ScriptedUpstream, accept: str
) -> None:
    upstream.on("much", Reply(tokens=["x" * 10_000] * 600))
    mission_id = await api.generate([chat(str(n), "much") for n in range(4)])
    await api.finished(mission_id)
    host, port = base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**16)
    path = f"/api/completion/st/mission?missionId={mission_id}"
    writer.write(
        f"GET {path} HTTP/1.0\r\nAuthorization: Vision chat\r\nAccept: {accept}\r\n\r\n".encode()
    )

    await asyncio.sleep(1)  # five heartbeats; the socket's buffers are full long before
    body = await asyncio.wait_for(reader.read(), 20)

    assert body.count(b"x" * 10_000) >= 24 or body.count(b"x") > 24_000_000
    assert b"[FINISHED]" in body[-300:]
    writer.close()


async def test_a_prompt_that_no_memory_holds_fails_its_node_and_nothing_else(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("bad", Reply(status=400, error={"message": "no"}))
    text = {"default": "z" * 100_000}
    bomb = chat("b", "{{a}}" * 20_000, "a")

    mission_id = await api.generate(
        [chat("a", "bad", onError=text), bomb, chat("c", "fine"), chat("d", "{{b}}", "b")]
    )
    results = {result["id"]: result for result in (await api.finished(mission_id))["data"]}

    assert results["b"]["error"]["code"] == "prompt_too_long"
    assert [results[id_]["status"] for id_ in "abcd"] == [
        "defaulted",
        "failed",
        "succeeded",
        "skipped",
    ]


async def test_an_error_does_not_send_a_clients_megabytes_back(api: Api) -> None:
    for prompt in (chat("1", "{{" + "z" * 900_000 + "}}"), chat("1", "x", "y" * 900_000)):
        response = await api.post("/api/completion/generate", {"promptList": [prompt]})

        assert response.code == 400
        assert len(response.body) < 5_000


async def test_more_missions_than_the_queue_may_hold_are_refused_and_leave_nothing(
    api: Api, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, services: Services
) -> None:
    upstream.on("slow", Reply(before_first=NEVER))
    monkeypatch.setattr(queue, "MAX_QUEUED", 2)
    for _ in range(2):
        await api.generate([chat("a", "slow")])

    body = {"promptList": [chat("a", "slow")]}
    response = await api.post("/api/completion/generate", body)

    assert response.code == 503
    assert response.headers["Retry-After"]
    assert json.loads(response.body)["error"]["code"] == "overloaded"
    assert len(await services.redis.keys("*:head")) == 2


async def test_more_single_prompts_than_may_wait_are_refused(
    api: Api, upstream: ScriptedUpstream, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.on("slow", Reply(before_headers=NEVER))
    monkeypatch.setattr(single, "MAX_WAITING", 1)
    url = f"{base_url}/api/completion/single-prompt-request"
    body: Any = {"model": "text-davinci-003", "params": {"prompt": "slow"}}
    async with aiohttp.ClientSession(headers=KEY) as session:
        waiting = [asyncio.create_task(session.post(url, json=body)) for _ in range(17)]
        await upstream.wait_requests(16)
        async with session.post(url, json=body) as response:
            answer = await response.json()
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    assert answer["code"] == 503
    assert answer["error"]["code"] == "overloaded"


@pytest.mark.parametrize("after", [2**64, 1e300, -1, 1.5, True])
async def test_a_cursor_beyond_all_numbers_is_refused_on_the_socket_too(
    api: Api, services: Services, base_url: str, after: Any
) -> None:
    mission_id = await api.generate([chat("a", "hi")])
    await api.finished(mission_id)
    url = base_url.replace("http", "ws") + "/api/completion/ws"
    async with aiohttp.ClientSession(headers=KEY) as session:
        async with session.ws_connect(url) as socket:
            await socket.send_json({"type": "subscribe", "missionId": mission_id, "after": after})
            answer = await socket.receive_json()

    assert (answer["type"], answer["code"], answer["path"]) == (
        "error",
        "invalid_request",
        "after",
    )


async def test_a_request_that_is_no_websocket_is_told_so_and_keeps_its_ticket(
    api: Api, http_client: AsyncHTTPClient, base_url: str
) -> None:
    ticket = json.loads((await api.post("/api/ticket", "")).body)["data"]["ticket"]
    url = f"{base_url}/api/completion/ws?ticket={ticket}"

    response = await http_client.fetch(url, raise_error=False)

    assert response.code == 400
    assert "WebSocket" in json.loads(response.body)["message"]
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(url.replace("http", "ws")) as socket:
            await socket.send_json({"type": "ping"})
            assert (await socket.receive_json())["type"] == "pong"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_answers_head_and_refuses_other_methods_in_the_documented_shape(
    api: Api, base_url: str, path: str
) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.head(base_url + path) as head:
            assert head.status == 200
        async with session.post(base_url + path) as post:
            assert (await post.json())["error"]["code"] == "method_not_allowed"


async def test_metrics_are_behind_a_key_and_name_the_queue(api: Api) -> None:
    await api.stream([chat("a", "hi")])

    response = await api.get("/metrics")

    text = response.body.decode()
    assert response.code == 200
    for name in (
        'vision_queue_missions{state="waiting"} 0.0',
        "vision_queue_age_seconds 0.0",
        "vision_missions_room 64.0",
        "vision_log_events_total ",
        'vision_upstream_calls{state="running",upstream="scripted"} 0.0',
    ):
        assert name in text, text
