"""Cancelling, from any process: confirmed, at once where the runner hears, in time where not."""

from __future__ import annotations

import asyncio
import time

import pytest
from redis.asyncio import Redis

from tests.contract.conftest import chat
from tests.unit.missions.team import Process, Team, emptied, numbered, until
from tests.upstream import Reply, ScriptedUpstream
from vision.errors import UnknownMission, UnknownNode
from vision.missions import service as service_module
from vision.missions.live import Wish

STUCK = "[[stop_after=1 hang=true]]"
SILENT = "[[before_first=60]]"
NEVER = 3600.0


async def statuses(process: Process, mission_id: str) -> dict[str, str]:
    progress = await process.services.missions.progress(mission_id)
    nodes = {node_id: outcome.status.value for node_id, outcome in progress.outcomes.items()}
    return {"": progress.status.value} | nodes


@pytest.mark.gen_test
@pytest.mark.parametrize("answer", [STUCK, SILENT], ids=["while it speaks", "before it speaks"])
async def test_mission_is_cancelled_from_another_process_and_its_model_call_closed_at_once(
    team: Team, upstream: ScriptedUpstream, client: Redis, answer: str
):
    owner = await team.process(claim_timeout=NEVER)
    mission_id = await owner.begin(chat("a", f"{answer} go"), chat("b", "go", "a"))
    await upstream.wait_requests(1)
    other = await team.process(room=1)
    began = time.monotonic()
    progress = await other.services.missions.cancel(mission_id, None)
    assert progress.status == "cancelled"
    await upstream.wait_closed(1)
    assert time.monotonic() - began < 1
    events = await other.events(mission_id)
    assert numbered(events)
    assert await statuses(other, mission_id) == {
        "": "cancelled",
        "a": "cancelled",
        "b": "cancelled",
    }
    await emptied(client)
    assert (await client.hget(f"vision:{{{mission_id}}}:head", "epoch")) == b"1"  # no take-over


@pytest.mark.gen_test
async def test_only_the_named_node_is_ended_and_what_needs_it(
    team: Team, upstream: ScriptedUpstream
):
    upstream.on("other", Reply(before_first=0.3))
    owner = await team.process(claim_timeout=NEVER)
    mission_id = await owner.begin(
        chat("a", f"{SILENT} go"), chat("needs a", "go", "a"), chat("b", "other")
    )
    await upstream.wait_requests(2)
    other = await team.process()
    progress = await other.services.missions.cancel(mission_id, "a")
    assert progress.outcomes["a"].status == "cancelled"
    await upstream.wait_closed(1)
    assert await other.ended(mission_id) == {
        "": "failed",
        "a": "cancelled",
        "needs a": "skipped",
        "b": "succeeded",
    }
    assert [request.prompt for request in upstream.closed] == [f"{SILENT} go"]


@pytest.mark.gen_test
async def test_mission_that_nobody_has_begun_is_cancelled_without_being_run(
    team: Team, upstream: ScriptedUpstream, client: Redis
):
    process = await team.process()
    await process.services.runner.drain()  # it takes nothing more
    missions = process.services.missions
    mission_id = await missions.start([chat("a", "go")])
    began = time.monotonic()
    assert (await missions.cancel(mission_id, None)).status == "cancelled"
    assert time.monotonic() - began < service_module.ANSWER_SECONDS  # nobody is asked
    await team.process()
    await emptied(client)
    assert upstream.requests == []
    assert await statuses(process, mission_id) == {"": "cancelled", "a": "cancelled"}


@pytest.mark.gen_test
async def test_node_that_was_cancelled_before_the_mission_began_is_not_run(
    team: Team, upstream: ScriptedUpstream
):
    process = await team.process()
    await process.services.runner.drain()
    missions = process.services.missions
    mission_id = await missions.start([chat("a", "ask a"), chat("b", "ask b")])
    await missions.cancel(mission_id, "a")
    other = await team.process()
    assert await other.ended(mission_id) == {"": "failed", "a": "cancelled", "b": "succeeded"}
    assert [request.prompt for request in upstream.requests] == ["ask b"]


@pytest.mark.gen_test
async def test_mission_whose_owner_does_not_answer_is_taken_from_it(
    team: Team, upstream: ScriptedUpstream, client: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(service_module, "ANSWER_SECONDS", 0.2)
    owner = await team.process(claim_timeout=NEVER)
    mission_id = await owner.begin(chat("a", "[[tokens=9 delay=0.1]]"))
    await owner.told(mission_id, "a")
    await owner.deafen()
    other = await team.process()
    began = time.monotonic()
    assert (await other.services.missions.cancel(mission_id, None)).status == "cancelled"
    assert time.monotonic() - began >= 0.2
    # Its next text is refused, by which it learns that the mission is no longer its own.
    await upstream.wait_closed(1)
    await emptied(client)
    assert mission_id not in owner.runs
    events = await other.events(mission_id)
    assert numbered(events)
    assert events[-1]["status"] == "cancelled"


@pytest.mark.gen_test
async def test_node_is_taken_from_an_owner_that_does_not_answer_and_the_rest_goes_on(
    team: Team, upstream: ScriptedUpstream, client: Redis, monkeypatch: pytest.MonkeyPatch
):
    """The owner, whose pen was taken, takes the mission up again: it still has the claim."""
    monkeypatch.setattr(service_module, "ANSWER_SECONDS", 0.2)
    owner = await team.process(claim_timeout=NEVER)
    mission_id = await owner.begin(chat("a", f"{SILENT} go"), chat("b", "[[tokens=9 delay=0.1]]"))
    await owner.told(mission_id, "b")
    await owner.deafen()
    other = await team.process()
    progress = await other.services.missions.cancel(mission_id, "a")
    assert progress.outcomes["a"].status == "cancelled"
    assert await other.ended(mission_id) == {"": "failed", "a": "cancelled", "b": "succeeded"}
    assert numbered(await other.events(mission_id))
    await emptied(client)
    assert sum(request.prompt == f"{SILENT} go" for request in upstream.requests) == 1


@pytest.mark.gen_test
async def test_cancelling_again_and_from_everywhere_at_once_ends_the_mission_once(
    team: Team, upstream: ScriptedUpstream
):
    owner, other = await team.process(room=1), await team.process(room=1)
    mission_id = await owner.services.missions.start(
        [chat("a", f"{STUCK} go"), chat("b", "go", "a")]
    )
    await upstream.wait_requests(1)
    both = [owner.services.missions, other.services.missions] * 3
    ends = await asyncio.gather(*(missions.cancel(mission_id, None) for missions in both))
    assert {progress.status.value for progress in ends} == {"cancelled"}
    events = await other.events(mission_id)
    assert numbered(events)
    assert [event["type"] for event in events if event["type"] != "token"] == [
        "cancelled",
        "cancelled",
        "finished",
    ]
    again = await other.services.missions.cancel(mission_id, "b")
    assert again.outcomes["b"].status == "cancelled"
    assert await other.events(mission_id) == events


@pytest.mark.gen_test
async def test_what_is_not_there_cannot_be_cancelled(team: Team, upstream: ScriptedUpstream):
    process = await team.process()
    mission_id = await process.begin(chat("a", f"{STUCK} go"))
    await process.told(mission_id, "a")
    with pytest.raises(UnknownMission):
        await process.services.missions.cancel("nobody", None)
    with pytest.raises(UnknownNode):
        await process.services.missions.cancel(mission_id, "nobody")
    assert await statuses(process, mission_id) == {"": "running", "a": "running"}


@pytest.mark.gen_test
async def test_wish_for_what_runs_elsewhere_or_is_not_there_is_passed_over(
    team: Team, upstream: ScriptedUpstream
):
    process = await team.process()
    mission_id = await process.begin(chat("a", f"{STUCK} go"))
    await process.told(mission_id, "a")
    await process.services.missions.grant(Wish("nobody"))
    await process.services.missions.grant(Wish(mission_id, "nobody"))
    await process.services.missions.grant(Wish(mission_id, "a"))
    await until(lambda: mission_id not in process.runs)
    assert await statuses(process, mission_id) == {"": "failed", "a": "cancelled"}
