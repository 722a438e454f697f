"""`baseMissionId`, over every transport: what did not change keeps its result and is not asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.conftest import Api, chat, contents_of, events_of
from tests.contract.test_socket import open_socket
from tests.upstream import ScriptedUpstream

pytestmark = pytest.mark.gen_test

BEFORE = [chat("a", "ask a"), chat("b", "ask b"), chat("c", "of {{a}}", "a")]
AFTER = [BEFORE[0], chat("b", "ask b anew"), BEFORE[2]]
CONTENTS = {"a": "echo: ask a", "b": "echo: ask b anew", "c": "echo: of echo: ask a"}
CACHED = {"a": "cached", "b": "succeeded", "c": "cached"}


async def base(api: Api, upstream: ScriptedUpstream) -> str:
    """The id of a mission that has ended."""
    mission_id = await api.generate(BEFORE)
    await api.finished(mission_id)
    assert len(upstream.requests) == 3
    return mission_id


def asked_again(upstream: ScriptedUpstream) -> list[str]:
    return [request.prompt for request in upstream.requests[3:]]


async def test_generate_runs_what_changed_and_mission_query_says_what_was_kept(
    api: Api, upstream: ScriptedUpstream
) -> None:
    body = {"promptList": AFTER, "baseMissionId": await base(api, upstream)}
    response = await api.post("/api/completion/generate", body)
    answer = await api.finished(json.loads(response.body)["data"]["missionId"])

    assert asked_again(upstream) == ["ask b anew"]
    assert answer["status"] == "succeeded"
    assert {node["id"]: node["status"] for node in answer["data"]} == CACHED
    assert {node["id"]: node["content"] for node in answer["data"]} == CONTENTS
    [kept] = [node for node in answer["data"] if node["id"] == "a"]
    assert (kept["attempts"], kept["usage"], kept["finishReason"]) == (0, None, "stop")
    assert kept["startedAt"] == kept["finishedAt"]


async def test_stream_tells_a_kept_result_in_one_token_and_its_end(
    api: Api, upstream: ScriptedUpstream
) -> None:
    body = {"promptList": AFTER, "baseMissionId": await base(api, upstream)}
    response = await api.post("/api/completion/st/generate", body)
    events = events_of(response.body)

    assert asked_again(upstream) == ["ask b anew"]
    assert contents_of(events) == CONTENTS
    token, done = (event for event in events if event.get("id") == "a")
    assert token["choices"] == [
        {"text": "echo: ask a", "index": 0, "logprobs": None, "finish_reason": "stop"}
    ]
    assert (done["statue"], done["type"], done["status"]) == ("[DONE]", "done", "cached")
    assert events[-1]["statue"] == "[FINISHED]"


async def test_socket_runs_what_changed(
    api: Api, base_url: str, upstream: ScriptedUpstream
) -> None:
    base_id = await base(api, upstream)
    async with open_socket(base_url) as socket:
        accepted = await socket.ask(type="generate", promptList=AFTER, baseMissionId=base_id)
        events = await socket.events(accepted["missionId"])

    assert asked_again(upstream) == ["ask b anew"]
    assert contents_of(events) == CONTENTS
    ends = {event["id"]: event["status"] for event in events if event["type"] == "done"}
    assert ends == CACHED


async def test_mission_that_was_kept_whole_is_itself_a_base(
    api: Api, upstream: ScriptedUpstream
) -> None:
    first = await base(api, upstream)
    for _ in range(2):
        body = {"promptList": BEFORE, "baseMissionId": first}
        response = await api.post("/api/completion/generate", body)
        first = json.loads(response.body)["data"]["missionId"]
        answer = await api.finished(first)
        assert {node["status"] for node in answer["data"]} == {"cached"}
    assert asked_again(upstream) == []


async def test_node_that_failed_in_the_base_is_run(api: Api, upstream: ScriptedUpstream) -> None:
    flaky = [chat("a", "[[fail=1]] ask a", retries=0), chat("b", "ask b")]
    first = await api.generate(flaky)
    assert (await api.finished(first))["status"] == "failed"
    body = {"promptList": flaky, "baseMissionId": first}
    response = await api.post("/api/completion/generate", body)
    answer = await api.finished(json.loads(response.body)["data"]["missionId"])
    assert [node["status"] for node in answer["data"]] == ["succeeded", "cached"]


@pytest.mark.parametrize("path", ["generate", "st/generate"])
async def test_unknown_base_is_refused_and_nothing_is_run(
    api: Api, upstream: ScriptedUpstream, path: str
) -> None:
    body = {"promptList": BEFORE, "baseMissionId": "nobody"}
    response = await api.post(f"/api/completion/{path}", body)
    assert response.code == 404
    refused(json.loads(response.body)["error"], upstream)


async def test_unknown_base_is_refused_on_the_socket_and_it_stays_open(
    api: Api, base_url: str, upstream: ScriptedUpstream
) -> None:
    async with open_socket(base_url) as socket:
        answer = await socket.ask(
            type="generate", requestId=7, promptList=BEFORE, baseMissionId="nobody"
        )
        assert (answer["type"], answer["requestId"]) == ("error", 7)
        refused(answer, upstream)
        assert (await socket.ask(type="ping"))["type"] == "pong"


def refused(error: dict[str, Any], upstream: ScriptedUpstream) -> None:
    assert (error["code"], error["path"]) == ("unknown_mission", "baseMissionId")
    assert error["message"] == 'baseMissionId: no mission with id "nobody", or it has expired'
    assert upstream.requests == []


@pytest.mark.parametrize("wrong", ["", 7, ["x"], "x" * 129])
async def test_base_that_is_no_id_is_refused_with_its_path(api: Api, wrong: Any) -> None:
    body = {"promptList": BEFORE, "baseMissionId": wrong}
    response = await api.post("/api/completion/generate", body)
    assert response.code == 400
    assert json.loads(response.body)["error"]["path"] == "baseMissionId"


async def test_no_base_may_be_said(api: Api, upstream: ScriptedUpstream) -> None:
    body = {"promptList": BEFORE, "baseMissionId": None}
    response = await api.post("/api/completion/st/generate", body)
    assert response.code == 200
    assert len(upstream.requests) == 3
