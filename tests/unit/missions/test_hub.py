"""Every subscriber gets every event behind its cursor once, from the log or live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from tests.unit.missions.conftest import TTL_MS
from tests.unit.missions.watching import Mission, batches_of, follow, numbers, watch
from vision import redis_edge
from vision.errors import StoreUnavailable, UnknownCursor, UnknownMission
from vision.missions import hub as hub_module, watch as watch_module
from vision.missions.events import Batch
from vision.missions.hub import Hub
from vision.missions.log import MissionLog
from vision.missions.watch import Subscriber
from vision.redis_edge import connect


class Feed:
    """The feed of missions that run elsewhere: which are asked for, and which no more."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def join(self, mission_id: str) -> None:
        self.calls.append(("join", mission_id))

    def part(self, mission_id: str) -> None:
        self.calls.append(("part", mission_id))


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def hub(log: MissionLog, feed: Feed) -> Hub:
    return Hub(log, feed.join, feed.part)


@pytest.fixture
def mission(io_loop: IOLoop, log: MissionLog, hub: Hub) -> Mission:
    mission = Mission(log, hub)
    io_loop.run_sync(mission.begin)
    return mission


async def subscribed(hub: Hub, count: int = 1) -> None:
    """Until so many wait for the live feed."""
    async with asyncio.timeout(5):
        while len(waiting(hub)) < count:
            await asyncio.sleep(0.001)


def waiting(hub: Hub) -> list[Subscriber]:
    if "m" not in hub._feeds:
        return []
    return [one for one in hub._feeds["m"].subscribers if one._arrived._waiters]


@asynccontextmanager
async def looking(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The hub looks after missions elsewhere, more often than it does for people."""
    monkeypatch.setattr(hub_module, "LOOK_SECONDS", 0.005)
    run = asyncio.create_task(hub.run())
    yield
    assert not run.done()
    run.cancel()
    await asyncio.wait({run})


@pytest.mark.gen_test
async def test_subscriber_gets_what_was_and_then_what_comes(hub: Hub, mission: Mission):
    await mission.add(3)
    watching = asyncio.create_task(watch(hub))
    await subscribed(hub)
    await mission.add(2)
    await mission.add(1, final=True)
    assert await watching == numbers(1, 6)


@pytest.mark.gen_test
async def test_finished_mission_is_replayed_whole_and_from_any_cursor(hub: Hub, mission: Mission):
    await mission.add(3)
    await mission.add(2, final=True)
    for after in range(5):
        assert await watch(hub, after) == numbers(after + 1, 5)


@pytest.mark.gen_test
async def test_only_a_watch_with_nothing_to_come_is_over(hub: Hub, mission: Mission):
    await mission.add(2)
    assert not (await hub.subscribe("m", 2)).over
    await mission.add(1, final=True)
    assert not (await hub.subscribe("m", 2)).over
    last = await hub.subscribe("m", 3)
    assert last.over
    assert [batch.events async for batch in batches_of(last)] == [()]


@pytest.mark.gen_test
async def test_wrong_mission_or_cursor_is_refused_before_the_stream_begins(
    hub: Hub, mission: Mission
):
    with pytest.raises(UnknownMission):
        await hub.subscribe("other", 0)
    with pytest.raises(UnknownCursor):
        await hub.subscribe("m", 1)
    assert hub._feeds == {}


@pytest.mark.gen_test
async def test_subscribers_share_the_batches_and_so_their_frames(hub: Hub, mission: Mission):
    watchers = [asyncio.create_task(collect(hub)) for _ in range(3)]
    await subscribed(hub, 3)
    published = [await mission.add(2), await mission.add(1, final=True)]
    for batches in await asyncio.gather(*watchers):
        assert len(batches) == 2
        assert all(got is sent for got, sent in zip(batches, published, strict=True))


async def collect(hub: Hub) -> list[Batch]:
    return [batch async for batch in follow(hub)]


@pytest.mark.gen_test
async def test_slow_subscriber_loses_nothing_and_holds_no_more_than_its_bound(
    hub: Hub, mission: Mission, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch_module, "QUEUE_BYTES", 40)
    batches = follow(hub)
    await mission.add(1)
    got = list((await anext(batches)).events)
    [subscriber] = hub._feeds["m"].subscribers
    for _ in range(50):
        await mission.add(2)
        assert subscriber._bytes <= 40
    assert subscriber.overflowed
    assert not subscriber._batches
    await mission.add(1, final=True)
    got += [event async for batch in batches for event in batch.events]
    assert got == numbers(1, 102)


@pytest.mark.gen_test
async def test_slow_subscriber_does_not_hold_up_a_fast_one(
    hub: Hub, mission: Mission, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watch_module, "QUEUE_BYTES", 40)
    await mission.add(1)
    slow = follow(hub)
    await anext(slow)
    fast = asyncio.create_task(watch(hub))
    await subscribed(hub)
    for _ in range(20):
        await mission.add(2)
    await mission.add(1, final=True)
    assert await fast == numbers(1, 42)
    assert [event async for batch in slow for event in batch.events] == numbers(2, 42)


def test_batch_that_is_larger_than_the_bound_is_taken_alone():
    subscriber = Subscriber()
    large = Batch(1, [b"x" * (watch_module.QUEUE_BYTES + 1)], final=False)
    subscriber.offer(large)
    assert not subscriber.overflowed
    subscriber.offer(Batch(2, [b"x"], final=False))
    assert subscriber.overflowed
    assert subscriber.take() is None


@pytest.mark.gen_test
async def test_who_leaves_is_forgotten(hub: Hub, mission: Mission):
    await mission.add(1)
    first, second = follow(hub), follow(hub)
    await anext(first)
    await anext(second)
    await first.aclose()
    assert len(hub._feeds["m"].subscribers) == 1
    await second.aclose()
    assert hub._feeds == {}


@pytest.mark.gen_test
async def test_feed_is_asked_for_while_somebody_watches_a_mission_that_runs_elsewhere(
    hub: Hub, feed: Feed, mission: Mission
):
    await mission.add(1)
    first, second = follow(hub), follow(hub)
    await anext(first)
    await anext(second)
    assert feed.calls == [("join", "m")]
    await first.aclose()
    hub.own("m")
    hub.disown("m")
    await second.aclose()
    assert feed.calls == [("join", "m"), ("part", "m"), ("join", "m"), ("part", "m")]


@pytest.mark.gen_test
async def test_mission_that_runs_here_needs_no_feed(hub: Hub, feed: Feed, mission: Mission):
    hub.own("m")
    watching = asyncio.create_task(watch(hub))
    await subscribed(hub)
    await mission.add(1, final=True)
    assert await watching == numbers(1, 1)
    hub.disown("m")
    assert feed.calls == []


@pytest.mark.gen_test
async def test_feed_of_an_expected_mission_is_asked_for_once_it_is_known_to_run_elsewhere(
    hub: Hub, feed: Feed
):
    here, elsewhere = hub.expect("here"), hub.expect("elsewhere")
    assert feed.calls == []
    hub.own("here")
    hub.follow("here")
    hub.follow("elsewhere")
    assert ("join", "here") not in feed.calls
    assert feed.calls[-1] == ("join", "elsewhere")
    here.close()
    elsewhere.close()


@pytest.mark.gen_test
async def test_mission_that_has_ended_needs_no_feed_whoever_ran_it(
    hub: Hub, feed: Feed, mission: Mission
):
    hub.own("m")
    found = await hub.subscribe("m", 0)
    await mission.add(1, final=True)
    hub.disown("m")
    assert feed.calls == []
    found.close()


@pytest.mark.gen_test
async def test_mission_whose_feed_is_silent_is_followed_through_the_log(
    hub: Hub, mission: Mission, monkeypatch: pytest.MonkeyPatch
):
    watching = asyncio.create_task(watch(hub))
    await subscribed(hub)
    async with looking(hub, monkeypatch):
        for _ in range(3):
            await mission.add(2, live=False)
            await asyncio.sleep(0)
        await mission.add(1, final=True, live=False)
        assert await watching == numbers(1, 7)


@pytest.mark.gen_test
async def test_log_of_a_mission_elsewhere_is_read_only_when_it_has_grown(
    hub: Hub, mission: Mission, monkeypatch: pytest.MonkeyPatch
):
    watching = asyncio.create_task(watch(hub))
    await subscribed(hub)
    await mission.add(2)
    [subscriber] = hub._feeds["m"].subscribers
    looks = watched_looks(subscriber, monkeypatch)
    await hub._look_after(["m"])
    assert looks == []
    await mission.add(1, final=True, live=False)
    await hub._look_after(["m"])
    assert looks == ["look"]
    assert await watching == numbers(1, 3)


def watched_looks(subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    looks: list[str] = []
    look = subscriber.look

    def noted() -> None:
        looks.append("look")
        look()

    monkeypatch.setattr(subscriber, "look", noted)
    return looks


@pytest.mark.gen_test
async def test_watch_of_a_mission_that_is_gone_ends_with_an_error(
    hub: Hub, mission: Mission, client: Redis, monkeypatch: pytest.MonkeyPatch
):
    await mission.add(1)
    watching = asyncio.create_task(watch(hub))
    await subscribed(hub)
    await client.flushdb()
    async with looking(hub, monkeypatch):
        with pytest.raises(UnknownMission):
            await watching


@pytest.mark.gen_test
async def test_gap_in_the_live_feed_is_filled_from_the_log(hub: Hub, mission: Mission):
    watching = asyncio.create_task(watch(hub))
    await subscribed(hub)
    await mission.add(2, live=False)
    await mission.add(1)
    await mission.add(1, final=True)
    assert await watching == numbers(1, 4)


@pytest.mark.gen_test
async def test_watching_outlasts_a_store_that_does_not_answer(
    hub: Hub, mission: Mission, client: Redis, monkeypatch: pytest.MonkeyPatch
):
    watching = asyncio.create_task(watch(hub))
    await subscribed(hub)
    async with looking(hub, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(redis_edge, "CALL_SECONDS", 0.01)
            await client.client_pause(200, all=True)
            with pytest.raises(StoreUnavailable):
                await hub.subscribe("m", 0)
        await mission.add(2, final=True, live=False)
        assert await watching == numbers(1, 2)


@pytest.mark.gen_test
async def test_store_that_is_away_refuses_a_new_watch(tmp_path: Path, feed: Feed):
    redis = connect(f"unix://{tmp_path}/nobody")
    away = Hub(MissionLog(redis, mission_ttl_ms=TTL_MS), feed.join, feed.part)
    with pytest.raises(StoreUnavailable):
        await away.subscribe("m", 0)
    await redis.aclose()
