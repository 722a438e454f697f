"""根据配置生成内容接口 and 任务结果查询接口: generate, mission-query."""

from __future__ import annotations

import json

import pytest

from tests.contract.conftest import Api, chat, text
from tests.upstream import NEVER, Reply, ScriptedUpstream

QUERY = "/api/completion/mission-query"
pytestmark = pytest.mark.gen_test


async def test_generate_answers_with_the_mission_id(api: Api) -> None:
    response = await api.post("/api/completion/generate", {"promptList": [chat("1", "hi")]})

    answer = json.loads(response.body)
    assert response.code == answer["statusCode"] == 200
    assert isinstance(answer["message"], str)
    assert list(answer["data"]) == ["missionId"]


async def test_a_mission_that_runs_answers_1100_with_http_200(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(before_first=NEVER))
    mission_id = await api.generate([chat("1", "slow")])

    response = await api.get(f"{QUERY}?missionId={mission_id}")

    answer = json.loads(response.body)
    assert response.code == 200
    assert list(answer.items())[:2] == [
        ("statusCode", 1100),
        ("message", "mission not finished yet."),
    ]


async def test_a_mission_that_runs_tells_of_its_nodes(api: Api, upstream: ScriptedUpstream) -> None:
    upstream.on("slow", Reply(before_first=NEVER))
    mission_id = await api.generate([chat("1", "slow"), chat("2", "{{1}}", "1")])
    await upstream.wait_requests(1)

    answer = json.loads((await api.get(f"{QUERY}?missionId={mission_id}")).body)

    assert [node["id"] for node in answer["nodes"]] == ["1", "2"]
    assert answer["nodes"][1]["status"] == "waiting"


async def test_contents_come_in_the_order_of_the_prompt_list(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("late", Reply(tokens=["L"], before_first=0.1))
    mission_id = await api.generate([chat("z", "late"), text("a", "x"), chat("m", "{{z}}", "z")])

    answer = await api.finished(mission_id)

    assert answer["statusCode"] == 200
    results = [(result["id"], result["content"]) for result in answer["data"]]
    assert results == [("z", "L"), ("a", "echo: x"), ("m", "echo: L")]


async def test_each_result_also_has_its_status_usage_and_times(api: Api) -> None:
    mission_id = await api.generate([chat("1", "one two")])

    (result,) = (await api.finished(mission_id))["data"]

    assert list(result)[:2] == ["id", "content"]
    assert result["status"] == "succeeded"
    assert result["usage"]["total_tokens"] > 0
    assert 0 < result["startedAt"] <= result["finishedAt"]
    assert result["error"] is None


async def test_a_failed_node_has_its_error_in_its_result(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("bad", Reply(status=400, error={"message": "too long"}))
    mission_id = await api.generate([chat("1", "bad"), chat("2", "{{1}}", "1")])

    answer = await api.finished(mission_id)

    assert [result["status"] for result in answer["data"]] == ["failed", "skipped"]
    assert answer["data"][0]["error"]["code"] == "upstream_rejected"
    assert answer["data"][1]["error"]["code"] == "dependency_failed"


@pytest.mark.parametrize("query", ["?missionId=nope", "?missionId=", "", "?missionId=%FF"])
async def test_a_wrong_mission_id_answers_bad_request_as_documented(api: Api, query: str) -> None:
    response = await api.get(QUERY + query)

    answer = json.loads(response.body)
    assert response.code == 400
    assert list(answer.items())[:2] == [("statusCode", 400), ("message", "Bad Request")]
    assert answer["error"]["message"].startswith("missionId: ")
