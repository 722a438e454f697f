"""POST /api/completion/cancel, and `onDisconnect`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.contract.conftest import KEY, Api, chat, events_of
from tests.upstream import NEVER, Reply, ScriptedUpstream
from vision.missions import writer as writer_module
from vision.missions.log import Spec, encode_spec
from vision.missions.service import Missions
from vision.missions.watch import Watch
from vision.services import Services

PATH = "/api/completion/cancel"
pytestmark = pytest.mark.gen_test


async def cancel(api: Api, mission_id: str, **node: str) -> tuple[int, dict[str, Any]]:
    response = await api.post(PATH, {"missionId": mission_id, **node})
    return response.code, json.loads(response.body)


async def replay(api: Api, mission_id: str) -> list[dict[str, Any]]:
    return events_of((await api.get(f"/api/completion/st/mission?missionId={mission_id}")).body)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(before_headers=NEVER),
        Reply(before_first=NEVER),
        Reply(tokens=50, stop_after=2, hang=True),
    ],
    ids=["before the headers", "before the first token", "in the middle"],
)
async def test_cancelling_closes_the_model_call_within_a_second(
    api: Api, upstream: ScriptedUpstream, reply: Reply
) -> None:
    upstream.on("slow", reply)
    mission_id = await api.generate([chat("a", "slow")])
    await upstream.wait_requests(1)

    status, answer = await cancel(api, mission_id)

    await upstream.wait_closed(1, timeout=1)
    assert status == answer["statusCode"] == 200
    assert answer["data"] == {"missionId": mission_id, "status": "cancelled"}


async def test_a_cancelled_mission_ends_for_its_watchers(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(before_first=NEVER))
    mission_id = await api.generate([chat("a", "slow"), chat("b", "{{a}}", "a")])
    watching = asyncio.create_task(api.get(f"/api/completion/st/mission?missionId={mission_id}"))
    await upstream.wait_requests(1)

    await cancel(api, mission_id)

    events = events_of((await watching).body)
    assert [event["statue"] for event in events] == ["[CANCELLED]", "[CANCELLED]", "[FINISHED]"]
    assert events[-1]["status"] == "cancelled"


async def test_a_cancelled_mission_can_be_queried_and_keeps_what_it_had(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(before_first=NEVER))
    mission_id = await api.generate([chat("a", "quick"), chat("b", "slow {{a}}", "a")])
    await upstream.wait_requests(2)
    await cancel(api, mission_id)

    answer = await api.finished(mission_id)

    assert answer["status"] == "cancelled"
    found = [(node["status"], node["content"]) for node in answer["data"]]
    assert found == [("succeeded", "echo: quick"), ("cancelled", "")]


async def test_cancelling_one_node_skips_its_dependents_and_lets_the_rest_go_on(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(before_first=NEVER))
    upstream.on("other", Reply(tokens=["fine"], before_first=0.2))
    mission_id = await api.generate(
        [chat("a", "slow"), chat("b", "{{a}}", "a"), chat("c", "other")]
    )
    await upstream.wait_requests(2)

    status, answer = await cancel(api, mission_id, id="a")

    await upstream.wait_closed(1, timeout=1)
    assert (status, answer["data"]["status"], answer["data"]["id"]) == (200, "cancelled", "a")
    result = await api.finished(mission_id)
    assert [node["status"] for node in result["data"]] == ["cancelled", "skipped", "succeeded"]


async def test_cancelling_again_changes_nothing(api: Api, upstream: ScriptedUpstream) -> None:
    upstream.on("slow", Reply(before_first=NEVER))
    mission_id = await api.generate([chat("a", "slow")])
    await cancel(api, mission_id)
    events = await replay(api, mission_id)

    status, answer = await cancel(api, mission_id)

    assert (status, answer["data"]["status"]) == (200, "cancelled")
    assert await replay(api, mission_id) == events


async def test_cancelling_what_has_succeeded_says_that_it_succeeded(api: Api) -> None:
    mission_id = await api.generate([chat("a", "hi")])
    await api.finished(mission_id)

    status, answer = await cancel(api, mission_id)

    assert (status, answer["data"]["status"]) == (200, "succeeded")


async def test_cancelling_at_any_moment_ends_the_mission_for_good(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("go", Reply(tokens=8, delay=0.01))

    async def at(delay: float) -> None:
        mission_id = await api.generate([chat("a", "go"), chat("b", "go {{a}}", "a")])
        await asyncio.sleep(delay)
        _, answer = await cancel(api, mission_id)
        events = await replay(api, mission_id)
        assert answer["data"]["status"] == events[-1]["status"]
        assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]

    await asyncio.gather(*(at(number * 0.005) for number in range(40)))


async def test_a_mission_that_nobody_runs_yet_can_be_cancelled(
    api: Api, services: Services
) -> None:
    # Recorded and never queued: no runner will ever take it.
    spec = encode_spec(Spec([chat("a", "hi")]))
    await services.missions._log.create("waiting", spec, 1)

    status, answer = await cancel(api, "waiting")

    assert (status, answer["data"]["status"]) == (200, "cancelled")


async def test_an_unknown_mission_or_node_is_404(api: Api) -> None:
    mission_id = await api.generate([chat("a", "hi")])

    assert (await cancel(api, "nope"))[1]["error"]["code"] == "unknown_mission"
    status, answer = await cancel(api, mission_id, id="z")

    assert status == 404
    assert (answer["error"]["code"], answer["error"]["path"]) == ("unknown_node", "id")


@pytest.mark.parametrize(("on_disconnect", "ends"), [("cancel", True), ("continue", False)])
async def test_on_disconnect_decides_what_a_leaving_client_does(
    api: Api, upstream: ScriptedUpstream, base_url: str, on_disconnect: str, *, ends: bool
) -> None:
    upstream.on("slow", Reply(tokens=3, delay=0.3))
    body = {"promptList": [chat("a", "slow")], "onDisconnect": on_disconnect}
    async with aiohttp.ClientSession(headers=KEY) as session:
        async with session.post(f"{base_url}/api/completion/st/generate", json=body) as response:
            await response.content.readline()
            mission_id = response.headers["X-Mission-Id"]
            response.close()

    answer = await api.finished(mission_id)

    assert answer["status"] == ("cancelled" if ends else "succeeded")
    assert len(upstream.closed) == ends


async def test_client_that_leaves_while_its_mission_is_accepted_ends_it_too(
    api: Api, upstream: ScriptedUpstream, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.on("silent", Reply(before_headers=NEVER))
    left, accept = asyncio.Event(), Missions.start_watched

    async def slowly(missions: Missions, *given: Any, **options: Any) -> tuple[str, Watch]:
        accepted = await accept(missions, *given, **options)
        await left.wait()
        return accepted

    monkeypatch.setattr(Missions, "start_watched", slowly)
    monkeypatch.setattr(writer_module, "BEGUN_SECONDS", 3600.0)  # nothing is to be told by chance
    async with aiohttp.ClientSession(headers=KEY) as session:
        body = {"promptList": [chat("a", "silent")], "onDisconnect": "cancel"}
        path = f"{base_url}/api/completion/st/generate"
        asking = asyncio.create_task(session.post(path, json=body))
        await upstream.wait_requests(1)
        asking.cancel()
        await asyncio.wait({asking})
    await asyncio.sleep(0.05)  # the server sees its end of the connection closed
    left.set()

    await upstream.wait_closed(1)
