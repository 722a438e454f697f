"""Who has which mission: claims on a real Valkey."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from vision.errors import Overloaded, StoreUnavailable
from vision.missions import queue as queue_module
from vision.missions.queue import MAX_REPLACED, Backlog, MissionQueue, Ticket
from vision.redis_edge import connect

NO_WAIT = 1


@pytest.fixture
def here(io_loop: IOLoop, client: Redis) -> MissionQueue:
    queue = MissionQueue(client, "here")
    io_loop.run_sync(queue.prepare)
    return queue


@pytest.fixture
def there(client: Redis) -> MissionQueue:
    return MissionQueue(client, "there")


def missions(tickets: list[Ticket]) -> list[str]:
    return [ticket.mission_id for ticket in tickets]


async def offer(queue: MissionQueue, *mission_ids: str) -> None:
    for mission_id in mission_ids:
        await queue.offer(mission_id)


@pytest.mark.gen_test
async def test_missions_are_taken_in_their_order_and_no_more_than_asked_for(here: MissionQueue):
    await offer(here, "a", "b", "c")
    assert missions(await here.take(2, NO_WAIT)) == ["a", "b"]
    assert missions(await here.take(2, NO_WAIT)) == ["c"]
    assert await here.take(2, NO_WAIT) == []


@pytest.mark.gen_test
async def test_mission_is_taken_by_one_only(here: MissionQueue, there: MissionQueue):
    await offer(here, "a", "b")
    taken = await asyncio.gather(here.take(1, NO_WAIT), there.take(1, NO_WAIT))
    assert sorted(missions(taken[0]) + missions(taken[1])) == ["a", "b"]


@pytest.mark.gen_test
async def test_taking_waits_for_the_first_mission(here: MissionQueue, client: Redis):
    waiting = asyncio.create_task(here.take(1, 2_000))
    async with asyncio.timeout(5):
        while not (await client.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0.001)
    await here.offer("a")
    assert missions(await waiting) == ["a"]


@pytest.mark.gen_test
async def test_preparing_again_loses_nothing(here: MissionQueue):
    await offer(here, "a")
    await here.prepare()
    assert missions(await here.take(1, NO_WAIT)) == ["a"]


@pytest.mark.gen_test
async def test_what_was_offered_before_anybody_prepared_is_taken(client: Redis):
    queue = MissionQueue(client, "here")
    await queue.offer("a")
    await queue.prepare()
    assert missions(await queue.take(1, NO_WAIT)) == ["a"]


@pytest.mark.gen_test
async def test_queue_that_redis_has_lost_is_made_again(here: MissionQueue, client: Redis):
    await client.flushdb()
    assert await here.take(1, NO_WAIT) == []
    await offer(here, "a")
    assert missions(await here.take(1, NO_WAIT)) == ["a"]


@pytest.mark.gen_test
async def test_done_mission_is_gone_from_the_queue(here: MissionQueue, client: Redis):
    await offer(here, "a")
    [ticket] = await here.take(1, NO_WAIT)
    await here.done(ticket)
    assert not await here.holds(ticket)
    assert await here.left_over(10) == []
    assert await client.xlen("vision:queue") == 0
    await here.done(ticket)  # repeated after a lost answer


@pytest.mark.gen_test
async def test_new_process_of_the_same_name_finds_what_the_dead_one_had(
    here: MissionQueue, there: MissionQueue, client: Redis
):
    await offer(here, "a", "b", "c")
    taken = await here.take(2, NO_WAIT)
    await there.take(1, NO_WAIT)
    again = MissionQueue(client, "here")
    assert await again.left_over(10) == taken
    assert await again.left_over(1) == taken[:1]


@pytest.mark.gen_test
async def test_claim_that_was_not_renewed_passes_to_another(
    here: MissionQueue, there: MissionQueue
):
    await offer(here, "a")
    [ticket] = await here.take(1, NO_WAIT)
    assert await there.take_over(10, 60_000) == []
    assert await there.take_over(10, 0) == [ticket]
    assert not await here.holds(ticket)
    assert await there.holds(ticket)


@pytest.mark.gen_test
async def test_renewed_claim_is_kept(here: MissionQueue, there: MissionQueue, client: Redis):
    await offer(here, "a", "b")
    kept, lost = await here.take(2, NO_WAIT)
    await age(client, 100)
    await here.renew([kept])
    assert await there.take_over(10, 100) == [lost]
    assert await here.holds(kept)


@pytest.mark.gen_test
async def test_abandoned_claim_is_found_behind_any_number_of_living_ones(
    here: MissionQueue, there: MissionQueue, client: Redis
):
    await offer(here, *map(str, range(100)), "abandoned")
    *living, abandoned = await here.take(101, NO_WAIT)
    await age(client, 1_000)
    await here.renew(living)
    assert await there.take_over(1, 1_000) == [abandoned]


@pytest.mark.gen_test
async def test_renewing_what_is_done_does_not_bring_it_back(here: MissionQueue):
    await offer(here, "a")
    [ticket] = await here.take(1, NO_WAIT)
    await here.done(ticket)
    await here.renew([ticket])
    assert not await here.holds(ticket)


@pytest.mark.gen_test
async def test_store_that_is_away_is_an_error_of_ours(tmp_path):
    redis = connect(f"unix://{tmp_path}/nobody")
    queue, ticket = MissionQueue(redis, "here"), Ticket(b"1-0", "m")
    calls = (queue.prepare(), queue.offer("m"), queue.left_over(1), queue.take(1, 1))
    more = (queue.take_over(1, 1), queue.renew([ticket]), queue.holds(ticket), queue.done(ticket))
    for call in (*calls, *more):
        with pytest.raises(StoreUnavailable):
            await call
    await redis.aclose()


async def age(client: Redis, milliseconds: int) -> None:
    """Let every claim look as old as that, without waiting for it."""
    pending = await client.xpending_range("vision:queue", "runners", "-", "+", 1_000)
    for entry in pending:
        await client.xclaim(
            "vision:queue",
            "runners",
            entry["consumer"],
            0,
            [entry["message_id"]],
            idle=milliseconds,
            justid=True,
        )


# --- hand-overs and the backlog -------------------------------------------------------------------


@pytest.mark.gen_test
async def test_renewing_tells_what_is_kept_and_takes_nothing_back(
    here: MissionQueue, there: MissionQueue
):
    await offer(here, "a", "b")
    tickets = await here.take(2, NO_WAIT)
    [lost] = await there.take_over(1, 0)
    [kept] = [ticket for ticket in tickets if ticket != lost]
    assert await here.renew(tickets) == {kept}
    assert not await here.holds(lost)
    assert await there.holds(lost)


@pytest.mark.gen_test
async def test_mission_that_is_handed_over_can_be_taken_at_once_and_names_what_it_replaces(
    here: MissionQueue, there: MissionQueue
):
    await here.offer("a")
    [ticket] = await here.take(1, NO_WAIT)
    await here.hand_over(ticket)
    assert not await here.holds(ticket)
    [first] = await there.take(1, NO_WAIT)
    assert first == Ticket(first.entry_id, "a", ticket.entry_id)
    await there.hand_over(first)
    [second] = await here.take(1, NO_WAIT)
    assert second.replaces.split() == [first.entry_id, ticket.entry_id]


@pytest.mark.gen_test
async def test_hand_overs_that_are_remembered_are_bounded(here: MissionQueue):
    await here.offer("a")
    for _ in range(MAX_REPLACED + 5):
        [ticket] = await here.take(1, NO_WAIT)
        await here.hand_over(ticket)
    [ticket] = await here.take(1, NO_WAIT)
    assert len(ticket.replaces.split()) == MAX_REPLACED


@pytest.mark.gen_test
async def test_backlog_counts_what_waits_and_what_is_claimed(here: MissionQueue, client: Redis):
    assert await here.backlog() == Backlog(waiting=0, claimed=0, since_ms=None)
    await offer(here, "a", "b", "c")
    entries = [int(entry_id.split(b"-")[0]) for entry_id, _ in await client.xrange("vision:queue")]
    assert await here.backlog() == Backlog(waiting=3, claimed=0, since_ms=entries[0])
    tickets = await here.take(2, NO_WAIT)
    assert await here.backlog() == Backlog(waiting=1, claimed=2, since_ms=entries[2])
    for ticket in [*tickets, *await here.take(1, NO_WAIT)]:
        await here.done(ticket)
    assert await here.backlog() == Backlog(waiting=0, claimed=0, since_ms=None)


@pytest.mark.gen_test
async def test_queue_is_bounded_and_takes_again_what_has_room(
    here: MissionQueue, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue_module, "MAX_QUEUED", 2)
    await offer(here, "a", "b")
    with pytest.raises(Overloaded, match="2 missions are queued; try again"):
        await here.offer("c")
    [ticket] = await here.take(1, NO_WAIT)
    with pytest.raises(Overloaded):
        await here.offer("c")  # one that runs counts as well
    await here.hand_over(ticket)  # and is not refused when it is handed over
    [ticket] = await here.take(1, NO_WAIT)
    await here.done(ticket)
    await here.offer("c")
    assert missions(await here.take(3, NO_WAIT)) == ["a", "c"]


@pytest.mark.gen_test
async def test_who_queues_a_mission_may_take_it_in_the_same_step(
    here: MissionQueue, there: MissionQueue
):
    waiting = asyncio.create_task(there.take(1, 100))
    [ticket] = await here.exchange("a")
    assert ticket.mission_id == "a"
    assert await here.holds(ticket)
    assert await waiting == []


@pytest.mark.gen_test
async def test_exchanging_takes_what_has_waited_longest(here: MissionQueue, there: MissionQueue):
    await offer(there, "old")
    [old] = await there.take(1, NO_WAIT)
    await there.hand_over(old)
    [ticket] = await here.exchange("new")
    assert (ticket.mission_id, ticket.replaces) == ("old", old.entry_id)
    assert missions(await there.take(2, NO_WAIT)) == ["new"]


@pytest.mark.gen_test
async def test_exchange_with_a_queue_that_redis_has_lost_keeps_the_mission(
    here: MissionQueue, client: Redis
):
    await client.flushdb()
    assert await here.exchange("a") == []
    await here.prepare()
    assert missions(await here.take(1, NO_WAIT)) == ["a"]


@pytest.mark.gen_test
async def test_exchange_is_refused_when_the_queue_is_full(
    here: MissionQueue, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue_module, "MAX_QUEUED", 1)
    await offer(here, "a")
    with pytest.raises(Overloaded, match="1 missions are queued; try again"):
        await here.exchange("b")
    assert missions(await here.take(2, NO_WAIT)) == ["a"]
