"""What a process does with the missions that it takes: run them, hand them over, give them up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.contract.conftest import chat
from tests.unit.missions.team import (
    Process,
    Team,
    emptied,
    numbered,
    queue_is_empty,
    tokens,
    until,
)
from tests.unit.missions.writing import RUNNING
from tests.upstream import Reply, ScriptedUpstream
from vision.missions.events import Batch, NodeStatus, Outcome
from vision.missions.log import MAX_CLAIMS, Append, Claim, MissionLog, Spec, encode_spec
from vision.missions.queue import MissionQueue, Ticket

SLOW = "[[tokens=3 delay=0.02]]"
STUCK = "[[stop_after=1 hang=true]]"

# Longer than any test: a mission that goes on has not waited for a claim to run out.
NEVER = 3600.0


@pytest.mark.gen_test
async def test_process_runs_no_more_missions_at_once_than_it_has_room_for(
    team: Team, upstream: ScriptedUpstream
):
    process = await team.process(room=2)
    missions = [
        await process.services.missions.start([chat("a", f"{SLOW} {number}")])
        for number in range(6)
    ]
    for mission_id in missions:
        assert await process.ended(mission_id) == {"": "succeeded", "a": "succeeded"}
    assert upstream.most_running == 2


@pytest.mark.gen_test
async def test_mission_that_was_taken_over_counts_for_the_room(
    team: Team, upstream: ScriptedUpstream, log: MissionLog, client: Redis
):
    """The look for new missions began while there was room; the take-over used it up since."""
    await offered(log, client, chat("a", SLOW))
    process = await team.process(room=1, claim_timeout=0.1)
    await until(lambda: "m" in process.runs)
    mission_id = await process.services.missions.start([chat("a", SLOW)])
    assert await process.ended("m") == {"": "succeeded", "a": "succeeded"}
    assert await process.ended(mission_id) == {"": "succeeded", "a": "succeeded"}
    assert upstream.most_running == 1
    await emptied(client)


@pytest.mark.gen_test
async def test_full_process_leaves_the_queue_to_the_others(team: Team, upstream: ScriptedUpstream):
    full, other = await team.process(room=1), await team.process(room=1)
    missions = full.services.missions
    first = await missions.start([chat("a", STUCK)])
    second = await missions.start([chat("a", STUCK)])
    await upstream.wait_requests(2)
    assert {*full.runs, *other.runs} == {first, second}
    assert len(full.runs) == len(other.runs) == 1


@pytest.mark.gen_test
async def test_mission_runs_where_it_was_accepted_while_there_is_room(
    team: Team, upstream: ScriptedUpstream
):
    accepting, other = await team.process(room=3), await team.process(room=8)
    await until(lambda: accepting.services.runner.taking)
    start = accepting.services.missions.start
    missions = await asyncio.gather(*(start([chat("a", STUCK)]) for _ in range(5)))
    await upstream.wait_requests(5)
    assert len(accepting.runs) == 3
    assert {*accepting.runs, *other.runs} == {*missions}


@pytest.mark.gen_test
async def test_no_more_is_taken_than_there_is_room_for_when_many_come_at_once(
    team: Team, client: Redis
):
    process = await team.process(room=2)
    await until(lambda: process.services.runner.taking)
    start = process.services.missions.start
    missions = await asyncio.gather(*(start([chat("a", SLOW)]) for _ in range(6)))
    for mission_id in missions:
        assert await process.ended(mission_id) == {"": "succeeded", "a": "succeeded"}
    await emptied(client)
    stream = await client.xinfo_stream("vision:queue")
    assert stream["entries-added"] == 6, "none was taken and queued again"


@pytest.mark.gen_test
async def test_client_that_leaves_while_its_mission_is_taken_does_not_hold_it_up(
    team: Team, log: MissionLog
):
    process = await team.process(claim_timeout=NEVER)
    await until(lambda: process.services.runner.taking)
    await log.create("m", encode_spec(Spec([chat("a", "go")])), 1)
    offering = asyncio.create_task(process.services.runner.offer("m"))
    await asyncio.sleep(0)
    offering.cancel()
    assert await process.ended("m") == {"": "succeeded", "a": "succeeded"}
    assert offering.cancelled()


@pytest.mark.gen_test
@pytest.mark.parametrize("processes", [1, 2])
async def test_mission_that_was_queued_twice_runs_once_and_leaves_the_queue_empty(
    team: Team, upstream: ScriptedUpstream, client: Redis, processes: int
):
    team_members = [await team.process(room=4) for _ in range(processes)]
    first = team_members[0].services
    mission_id = await first.missions.start([chat("a", SLOW), chat("b", SLOW, "a")])
    await first.queue.offer(mission_id)
    events = await team_members[-1].events(mission_id)
    await emptied(client)
    assert numbered(events)
    assert "restarted" not in {event["type"] for event in events}
    assert len(upstream.requests) == 2


@pytest.mark.gen_test
async def test_mission_of_a_crashed_process_is_taken_over_and_what_had_finished_is_not_run_again(
    team: Team, upstream: ScriptedUpstream, client: Redis
):
    upstream.on("second", Reply(stop_after=2, hang=True), Reply())
    process = await team.process(claim_timeout=0.3)
    mission_id = await process.begin(chat("a", "first"), chat("b", "second", "a"))
    await process.told(mission_id, "b")
    other = await team.process(claim_timeout=0.3)
    watching = asyncio.create_task(other.events(mission_id))
    await process.crash()
    events = await watching
    await emptied(client)
    assert numbered(events)
    assert [event["id"] for event in events if event["type"] == "restarted"] == ["b"]
    assert tokens(events, "b") == "echo: echo: first\n\nsecond"
    assert [request.prompt for request in upstream.requests] == [
        "first",
        "echo: first\n\nsecond",
        "echo: first\n\nsecond",
    ]


@pytest.mark.gen_test
async def test_process_that_comes_back_takes_up_at_once_what_it_had(
    team: Team, upstream: ScriptedUpstream
):
    upstream.on("go", Reply(stop_after=1, hang=True), Reply())
    process = await team.process(claim_timeout=NEVER)
    mission_id = await process.begin(chat("a", "go"))
    await upstream.wait_requests(1)
    await process.crash()
    process.start()
    assert await process.ended(mission_id) == {"": "succeeded", "a": "succeeded"}


@pytest.mark.gen_test
async def test_mission_whose_claim_was_lost_is_stopped_here_and_writes_nothing_more(
    team: Team, upstream: ScriptedUpstream, client: Redis
):
    # It learns of it after a third of that time; the thief keeps the mission for all of it.
    process = await team.process(claim_timeout=1.5)
    mission_id = await process.begin(chat("a", STUCK))
    await process.told(mission_id, "a")
    before = await client.hgetall(f"vision:{{{mission_id}}}:head")
    [entry] = await client.xrange("vision:queue")
    await client.xclaim("vision:queue", "runners", "thief", 0, [entry[0]])
    await upstream.wait_closed(1, timeout=1.5)
    await until(lambda: mission_id not in process.runs)
    assert await client.hgetall(f"vision:{{{mission_id}}}:head") == before
    assert not await queue_is_empty(client)


@pytest.mark.gen_test
async def test_mission_is_kept_as_long_as_its_claim_is_renewed(
    team: Team, upstream: ScriptedUpstream
):
    process = await team.process(claim_timeout=0.3)
    mission_id = await process.begin(chat("a", "[[before_first=1]] go"))
    await team.process(claim_timeout=0.3)
    assert await process.ended(mission_id) == {"": "succeeded", "a": "succeeded"}
    assert len(upstream.requests) == 1


@pytest.mark.gen_test
async def test_drained_process_hands_its_missions_over_at_once(
    team: Team, upstream: ScriptedUpstream, client: Redis
):
    upstream.on("second", Reply(stop_after=2, hang=True), Reply())
    process = await team.process(claim_timeout=NEVER)
    mission_id = await process.begin(chat("a", "first"), chat("b", "second", "a"))
    await process.told(mission_id, "b")
    other = await team.process(claim_timeout=NEVER)
    await process.services.runner.drain()
    assert not process.runs
    await upstream.wait_closed(1)
    events = await other.events(mission_id)
    await emptied(client)
    assert numbered(events)
    assert tokens(events, "b") == "echo: echo: first\n\nsecond"
    assert len(upstream.requests) == 3


@pytest.mark.gen_test
async def test_drained_process_takes_nothing_more(team: Team, log: MissionLog, client: Redis):
    """Neither what is new nor what a dead process had: both go to the other one."""
    drained = await team.process(claim_timeout=0.1)
    await drained.services.runner.drain()
    await offered(log, client, chat("a", "go"))
    mission_id = await drained.services.missions.start([chat("a", "go")])
    taken = watch_claims(drained)
    other = await team.process(claim_timeout=0.3)
    for each in ("m", mission_id):
        assert await other.ended(each) == {"": "succeeded", "a": "succeeded"}
    assert taken == []


def watch_claims(process: Process) -> list[str]:
    """The missions that the process acquires from now on."""
    taken: list[str] = []
    own = process.services.runner._hub.own

    def noted(mission_id: str) -> None:
        taken.append(mission_id)
        own(mission_id)

    process.services.runner._hub.own = noted  # type: ignore[method-assign]
    return taken


@pytest.mark.gen_test
async def test_mission_that_is_handed_back_to_the_same_process_runs_once_and_is_known(
    team: Team, upstream: ScriptedUpstream, client: Redis
):
    """It was frozen, another process took over and handed over, before this one noticed."""
    upstream.on("go", Reply(before_first=0.2), Reply(before_first=0.6))
    process = await team.process(claim_timeout=NEVER)
    mission_id = await process.begin(chat("a", "go"))
    await upstream.wait_requests(1)
    [ticket] = process.services.runner._tickets
    await process.services.queue.hand_over(ticket)
    await upstream.wait_requests(2)
    await until(lambda: ticket not in process.services.runner._tickets)
    assert mission_id in process.runs
    assert await process.ended(mission_id) == {"": "succeeded", "a": "succeeded"}
    await emptied(client)
    await until(lambda: not process.services.runner._tickets)
    assert process.runs == {}


# --- missions that lose their runners -------------------------------------------------------------


async def abandon(client: Redis, consumer: str) -> Ticket:
    """Take the only mission of the queue, as a process that does nothing with it."""
    queue = MissionQueue(client, consumer)
    await queue.prepare()
    [ticket] = await queue.take(1, 1)
    return ticket


async def lose_runners(log: MissionLog, ticket: Ticket, count: int) -> Claim:
    """So many claims of it in a row came to nothing."""
    for _ in range(count):
        claim = await log.acquire(ticket.mission_id, ticket.entry_id)
        assert claim is not None
    return claim


async def offered(log: MissionLog, client: Redis, *prompts: dict[str, Any]) -> Ticket:
    """A mission whose only entry in the queue is claimed by a process that is dead."""
    await log.create("m", encode_spec(Spec([*prompts])), 1)
    await MissionQueue(client, "client").offer("m")
    return await abandon(client, "dead")


@pytest.mark.gen_test
async def test_mission_that_keeps_losing_its_runners_is_given_up_with_its_reason(
    team: Team, upstream: ScriptedUpstream, log: MissionLog, client: Redis
):
    ticket = await offered(log, client, chat("a", "go"), chat("b", "go", "a"))
    await lose_runners(log, ticket, MAX_CLAIMS)
    process = await team.process(claim_timeout=0.1)
    assert await process.ended("m") == {"": "failed", "a": "failed", "b": "failed"}
    progress = await process.services.missions.progress("m")
    error = progress.outcomes["a"].error
    assert error is not None
    assert error.code == "runner_lost"
    assert error.message == "5 runners in a row were lost before any node of the mission ended"
    assert upstream.requests == []
    await emptied(client)


@pytest.mark.gen_test
async def test_last_of_the_allowed_runners_still_runs_the_mission(
    team: Team, log: MissionLog, client: Redis
):
    ticket = await offered(log, client, chat("a", "go"))
    await lose_runners(log, ticket, MAX_CLAIMS - 1)
    process = await team.process(claim_timeout=0.1)
    assert await process.ended("m") == {"": "succeeded", "a": "succeeded"}


@pytest.mark.gen_test
async def test_node_that_ended_is_progress_and_runners_are_counted_anew(
    team: Team, log: MissionLog, client: Redis
):
    ticket = await offered(log, client, chat("a", "go"), chat("b", "go", "a"))
    claim = await lose_runners(log, ticket, MAX_CLAIMS)
    outcomes = {"a": Outcome(NodeStatus.SUCCEEDED, "A")}
    done = Append("m", claim.epoch, Batch(1, [b"{}"], final=False), outcomes)
    assert await log.append([done]) == [None]
    process = await team.process(claim_timeout=0.1)
    assert await process.ended("m") == {"": "succeeded", "a": "succeeded", "b": "succeeded"}


@pytest.mark.gen_test
async def test_text_alone_is_no_progress(team: Team, log: MissionLog, client: Redis):
    ticket = await offered(log, client, chat("a", "go"))
    claim = await lose_runners(log, ticket, MAX_CLAIMS)
    begun = Append("m", claim.epoch, Batch(1, [b"{}"], final=False), {"a": RUNNING})
    assert await log.append([begun]) == [None]
    process = await team.process(claim_timeout=0.1)
    assert await process.ended("m") == {"": "failed", "a": "failed"}


@pytest.mark.gen_test
async def test_runner_that_hands_over_in_good_order_is_not_a_lost_one(
    team: Team, log: MissionLog, client: Redis
):
    ticket = await offered(log, client, chat("a", "go"))
    claim = await lose_runners(log, ticket, MAX_CLAIMS)
    assert await log.release("m", claim.epoch)
    process = await team.process(claim_timeout=0.1)
    assert await process.ended("m") == {"": "succeeded", "a": "succeeded"}


@pytest.mark.gen_test
async def test_drained_process_is_not_a_lost_one(
    team: Team, upstream: ScriptedUpstream, log: MissionLog, client: Redis
):
    upstream.on("go", Reply(stop_after=1, hang=True), Reply())
    ticket = await offered(log, client, chat("a", "go"))
    await lose_runners(log, ticket, MAX_CLAIMS - 1)
    last = await team.process(claim_timeout=0.1)
    await until(lambda: "m" in last.runs)
    await upstream.wait_requests(1)
    await last.services.runner.drain()
    other = await team.process(claim_timeout=NEVER)
    assert await other.ended("m") == {"": "succeeded", "a": "succeeded"}
