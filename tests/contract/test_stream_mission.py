"""GET /api/completion/st/mission: watch a mission from a cursor, on both framings."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from redis.asyncio import Redis

from handlers import body as body_module
from tests.contract.conftest import KEY, Api, chat, contents_of, events_of, sse_of
from tests.upstream import NEVER, Reply, ScriptedUpstream
from vision.services import Services

PATH = "/api/completion/st/mission"
pytestmark = pytest.mark.gen_test


async def test_a_finished_mission_replays_byte_for_byte(api: Api) -> None:
    live = await api.post(
        "/api/completion/st/generate", {"promptList": [chat("a", "one two three")]}
    )
    mission_id = live.headers["X-Mission-Id"]

    replay = await api.get(f"{PATH}?missionId={mission_id}")

    assert replay.body == live.body


async def test_every_cursor_gives_exactly_the_rest(api: Api) -> None:
    live = await api.post(
        "/api/completion/st/generate", {"promptList": [chat("a", "one two"), chat("b", "three")]}
    )
    events = events_of(live.body)
    mission_id = live.headers["X-Mission-Id"]

    for cursor in range(len(events) + 1):
        replay = await api.get(f"{PATH}?missionId={mission_id}&after={cursor}")
        assert events_of(replay.body) == events[cursor:]


async def test_last_event_id_goes_before_the_cursor_in_the_address(api: Api) -> None:
    mission_id = await api.generate([chat("a", "one two")])
    await api.finished(mission_id)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "2"}

    replay = await api.get(f"{PATH}?missionId={mission_id}&after=0", **headers)

    assert sse_of(replay.body)[0][0] == 3


async def test_an_event_stream_at_the_end_answers_204_so_that_browsers_stop_asking(
    api: Api,
) -> None:
    mission_id = await api.generate([chat("a", "hi")])
    await api.finished(mission_id)
    last = events_of((await api.get(f"{PATH}?missionId={mission_id}")).body)[-1]["seq"]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last)}

    response = await api.get(f"{PATH}?missionId={mission_id}", **headers)

    assert response.code == 204


async def test_a_running_mission_can_be_watched_from_the_middle(
    api: Api, upstream: ScriptedUpstream, base_url: str
) -> None:
    upstream.on("slow", Reply(tokens=["a", "b", "c", "d"], delay=0.1))
    mission_id = await api.generate([chat("n", "slow")])
    async with aiohttp.ClientSession(headers=KEY) as session:
        async with session.get(f"{base_url}{PATH}?missionId={mission_id}") as response:
            first = json.loads(await response.content.readline())
            second = json.loads(await response.content.readline())

    rest = events_of((await api.get(f"{PATH}?missionId={mission_id}&after={second['seq']}")).body)

    assert [event["seq"] for event in [first, second, *rest]] == [*range(1, len(rest) + 3)]
    assert contents_of([first, second, *rest]) == {"n": "abcd"}


async def test_a_client_that_leaves_does_not_end_the_mission(
    api: Api, upstream: ScriptedUpstream, base_url: str
) -> None:
    upstream.on("slow", Reply(tokens=["a", "b", "c"], delay=0.1))
    async with aiohttp.ClientSession(headers=KEY) as session:
        body = {"promptList": [chat("n", "slow")]}
        async with session.post(f"{base_url}/api/completion/st/generate", json=body) as response:
            await response.content.readline()
            mission_id = response.headers["X-Mission-Id"]
            response.close()

    result = await api.finished(mission_id)

    assert result["data"][0]["content"] == "abc"


async def test_many_watchers_of_one_mission_see_the_same(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(tokens=20, delay=0.01))
    mission_id = await api.generate([chat("n", "slow")])

    replies = await asyncio.gather(*(api.get(f"{PATH}?missionId={mission_id}") for _ in range(20)))

    assert len({reply.body for reply in replies}) == 1


async def test_an_unknown_mission_is_404_and_says_so(api: Api) -> None:
    response = await api.get(f"{PATH}?missionId=nope")

    answer = json.loads(response.body)
    assert response.code == answer["statusCode"] == 404
    assert answer["error"]["code"] == "unknown_mission"
    assert answer["error"]["path"] == "missionId"


async def test_a_mission_that_redis_loses_before_anything_was_sent_is_404_too(
    api: Api,
    services: Services,
    upstream: ScriptedUpstream,
    client: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_module, "HEAD_SECONDS", 3600.0)
    upstream.on("silent", Reply(before_headers=NEVER))
    mission_id = await api.generate([chat("n", "silent")])
    watching = asyncio.create_task(api.get(f"{PATH}?missionId={mission_id}"))
    async with asyncio.timeout(5):
        while mission_id not in services.missions._hub._feeds:
            await asyncio.sleep(0.001)
    await client.delete(*await client.keys(f"vision:{{{mission_id}}}:*"))

    services.missions._hub.look(mission_id)

    response = await watching
    assert response.code == 404
    assert json.loads(response.body)["error"]["code"] == "unknown_mission"
    assert "X-Mission-Id" not in response.headers


async def test_a_cursor_beyond_the_end_is_refused(api: Api) -> None:
    mission_id = await api.generate([chat("a", "hi")])
    await api.finished(mission_id)

    response = await api.get(f"{PATH}?missionId={mission_id}&after=999")

    assert response.code == 400
    assert json.loads(response.body)["error"]["code"] == "unknown_cursor"


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "９", "9" * 400])
async def test_a_cursor_that_is_no_number_is_refused(api: Api, after: str) -> None:
    mission_id = await api.generate([chat("a", "hi")])

    response = await api.get(f"{PATH}?missionId={mission_id}&after={after}")

    assert response.code == 400
    assert json.loads(response.body)["error"]["path"] == "after"


async def test_a_ticket_opens_an_event_stream_once(api: Api, base_url: str) -> None:
    mission_id = await api.generate([chat("a", "hi")])
    ticket = json.loads((await api.post("/api/ticket", "")).body)["data"]["ticket"]
    url = f"{PATH}?missionId={mission_id}&ticket={ticket}"

    first = await api.http.fetch(base_url + url, raise_error=False)
    second = await api.http.fetch(base_url + url, raise_error=False)

    assert (first.code, second.code) == (200, 401)
