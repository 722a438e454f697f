"""`Idempotency-Key`: a request that is sent again, since its answer was lost, is done once."""

from __future__ import annotations

import asyncio
import json

import pytest
import redis
from tornado.httpclient import HTTPResponse

from tests.contract.conftest import Api, chat, events_of
from tests.upstream import ScriptedUpstream
from vision.settings import Settings

pytestmark = pytest.mark.gen_test

BODY = json.dumps({"promptList": [chat("a", "go")]})
OTHER_BODY = json.dumps({"promptList": [chat("a", "go on")]})
GENERATE = "/api/completion/generate"
STREAM = "/api/completion/st/generate"


async def send(api: Api, path: str = GENERATE, body: str = BODY, key: str = "k") -> HTTPResponse:
    return await api.post(path, body, **{"Idempotency-Key": key})


def mission_of(response: HTTPResponse) -> str:
    assert response.code == 200, response.body
    return json.loads(response.body)["data"]["missionId"]


async def test_same_key_and_body_give_the_same_mission(
    api: Api, upstream: ScriptedUpstream
) -> None:
    mission_id = mission_of(await send(api))
    assert mission_of(await send(api)) == mission_id
    await api.finished(mission_id)
    assert mission_of(await send(api)) == mission_id
    assert len(upstream.requests) == 1


async def test_requests_that_come_at_once_are_one_mission(
    api: Api, upstream: ScriptedUpstream
) -> None:
    responses = await asyncio.gather(*(send(api) for _ in range(10)))
    [mission_id] = {mission_of(response) for response in responses}
    await api.finished(mission_id)
    assert len(upstream.requests) == 1


async def test_without_a_key_each_request_is_a_mission(
    api: Api, upstream: ScriptedUpstream
) -> None:
    assert mission_of(await api.post(GENERATE, BODY)) != mission_of(await api.post(GENERATE, BODY))
    await upstream.wait_requests(2)


async def test_another_key_is_another_mission(api: Api) -> None:
    assert mission_of(await send(api, key="1")) != mission_of(await send(api, key="2"))


async def test_stream_that_is_asked_for_again_is_the_same_from_its_first_event(
    api: Api, upstream: ScriptedUpstream
) -> None:
    first, again = await send(api, STREAM), await send(api, STREAM)
    assert first.headers["X-Mission-Id"] == again.headers["X-Mission-Id"]
    assert events_of(again.body) == events_of(first.body)
    assert len(upstream.requests) == 1


async def test_streams_at_once_are_one_mission_and_each_has_all_of_it(
    api: Api, upstream: ScriptedUpstream
) -> None:
    streams = await asyncio.gather(*(send(api, STREAM) for _ in range(5)))
    everything = [events_of(stream.body) for stream in streams]
    assert all(events == everything[0] for events in everything)
    assert everything[0][-1]["type"] == "finished"
    assert len(upstream.requests) == 1


async def test_a_mission_that_was_generated_can_be_streamed_with_its_key(
    api: Api, upstream: ScriptedUpstream
) -> None:
    mission_id = mission_of(await send(api))
    assert (await send(api, STREAM)).headers["X-Mission-Id"] == mission_id
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("path", [GENERATE, STREAM])
async def test_same_key_with_another_body_is_refused(
    api: Api, upstream: ScriptedUpstream, path: str
) -> None:
    mission_id = mission_of(await send(api))
    response = await send(api, path, OTHER_BODY)
    assert response.code == 409
    document = json.loads(response.body)
    assert document["statusCode"] == 409
    assert document["error"] == {
        "code": "idempotency_conflict",
        "message": "Idempotency-Key: this key was used with another body; use a new one",
        "path": "Idempotency-Key",
    }
    await api.finished(mission_id)
    assert [request.prompt for request in upstream.requests] == ["go"]


@pytest.mark.parametrize("path", [GENERATE, STREAM])
@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"], ids=["empty", "long", "tab"])
async def test_key_that_is_no_key_is_refused(
    api: Api, upstream: ScriptedUpstream, path: str, key: str
) -> None:
    response = await send(api, path, key=key)
    assert response.code == 400
    error = json.loads(response.body)["error"]
    assert (error["code"], error["path"]) == ("invalid_request", "Idempotency-Key")
    assert upstream.requests == []


async def test_refused_request_does_not_use_its_key_up(api: Api) -> None:
    wrong = json.dumps({"promptList": [chat("a", "{{nobody}}")]})
    assert (await send(api, body=wrong)).code == 400
    mission_of(await send(api))


async def test_key_is_not_kept_in_the_open(api: Api, settings: Settings) -> None:
    await send(api, key="a-secret-of-a-client")
    with redis.Redis(unix_socket_path=settings.redis_url.removeprefix("unix://")) as client:
        names = client.keys("*")
        assert any(b"idempotency" in name for name in names)
        assert not any(b"a-secret" in name for name in names)
