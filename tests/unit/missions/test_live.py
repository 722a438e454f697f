"""What a mission's subscribers hear of another process, and what wishes reach its runner."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from tests.unit.missions.conftest import TTL_MS
from tests.unit.missions.team import until
from tests.unit.missions.watching import Mission, follow, numbers, watch
from vision.errors import StoreUnavailable
from vision.missions import live as live_module
from vision.missions.events import Batch
from vision.missions.hub import Hub
from vision.missions.live import Listeners, LiveFeed, Wish
from vision.missions.log import MissionLog, channel
from vision.redis_edge import connect


class Ear:
    """A process that listens: its feed runs, its hub does not look by itself."""

    def __init__(self, redis: Redis) -> None:
        self.live = LiveFeed(redis)
        self.hub = Hub(MissionLog(redis, mission_ttl_ms=TTL_MS), self.live.join, self.live.part)
        self.batches: list[Batch] = []
        self.looks: list[str] = []
        self.wishes: list[Wish] = []
        self.live.listeners = Listeners(self._batch, self._look, self.wishes.append)

    def _batch(self, mission_id: str, batch: Batch) -> None:
        self.batches.append(batch)
        self.hub.publish(mission_id, batch)

    def _look(self, mission_id: str) -> None:
        self.looks.append(mission_id)
        self.hub.look(mission_id)


@pytest.fixture
def ear(io_loop: IOLoop, redis_url: str) -> Iterator[Ear]:
    redis = connect(redis_url)
    ear = Ear(redis)

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(ear.live.run())

    async def stop() -> None:
        assert not running.done()
        running.cancel()
        await asyncio.wait({running})
        await redis.aclose()

    running = io_loop.run_sync(start)
    yield ear
    io_loop.run_sync(stop)


@pytest.fixture
def mission(io_loop: IOLoop, log: MissionLog, ear: Ear) -> Mission:
    """A mission that "another process" writes: through another client, past the hub."""
    mission = Mission(log, Hub(log, lambda _: None, lambda _: None))
    io_loop.run_sync(mission.begin)
    return mission


async def joined(ear: Ear, client: Redis, count: int = 1) -> None:
    """Until Redis knows of so many subscriptions of the mission, and each has had its look."""
    while await subscriptions(client) != count:
        await asyncio.sleep(0.002)
    await until(lambda: ear.looks)


async def subscriptions(client: Redis, name: str = channel("m")) -> int:
    return (await client.pubsub_shardnumsub(name))[0][1]


async def listening(client: Redis) -> None:
    """Until somebody hears wishes."""
    async with asyncio.timeout(5):
        while not await subscriptions(client, "vision:control"):
            await asyncio.sleep(0.002)


@pytest.mark.gen_test
async def test_what_another_process_writes_is_heard_without_a_look_into_the_log(
    ear: Ear, mission: Mission, client: Redis
):
    watching = asyncio.create_task(watch(ear.hub))
    await joined(ear, client)
    sent = [await mission.add(2), await mission.add(1), await mission.add(1, final=True)]
    assert await watching == numbers(1, 4)
    assert ear.looks == ["m"]  # the one with which it began
    assert [(b.first, b.events, b.final) for b in ear.batches] == [
        (b.first, b.events, b.final) for b in sent
    ]


@pytest.mark.gen_test
async def test_what_came_before_the_subscription_took_hold_is_read_from_the_log(
    ear: Ear, mission: Mission
):
    """Nothing is heard of it: it was written between the watcher's page and the subscription."""
    batches = follow(ear.hub)
    await mission.add(1)
    assert (await anext(batches)).events == (b'{"seq":1}',)
    await mission.add(2, final=True)
    assert [event async for batch in batches for event in batch.events] == numbers(2, 3)


@pytest.mark.gen_test
async def test_lost_connections_lose_and_double_nothing(
    ear: Ear, mission: Mission, client: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_module, "RETRY_SECONDS", 0.005)
    watchers = [asyncio.create_task(watch(ear.hub)) for _ in range(3)]
    await joined(ear, client)
    killed = 0
    async with asyncio.timeout(10):
        while killed < 20:
            await mission.add(1)
            if mission.seq % 5 == 0:
                killed += await kill_feeds(client)
    await mission.add(1, final=True)
    for watching in watchers:
        assert await watching == numbers(1, mission.seq)


async def kill_feeds(client: Redis) -> int:
    return int(await client.execute_command("CLIENT", "KILL", "TYPE", "pubsub"))


@pytest.mark.gen_test
async def test_end_that_was_written_while_the_connection_was_lost_is_seen(
    ear: Ear, mission: Mission, client: Redis
):
    watching = asyncio.create_task(watch(ear.hub))
    await joined(ear, client)
    await kill_feeds(client)
    await mission.add(2, final=True)
    assert await watching == numbers(1, 2)


@pytest.mark.gen_test
async def test_missions_that_were_joined_and_left_meanwhile_are_so_after_a_lost_connection(
    ear: Ear, client: Redis
):
    names = [f"m{number}" for number in range(20)]
    for name in names[:10]:
        ear.live.join(name)
    async with asyncio.timeout(5):
        while len(await joined_channels(client)) < 10:
            await asyncio.sleep(0.002)
    await kill_feeds(client)
    for name in names[::2]:
        ear.live.part(name)
    for name in names[11::2]:
        ear.live.join(name)
    async with asyncio.timeout(5):
        while await joined_channels(client) != {channel(name) for name in names[1::2]}:
            await asyncio.sleep(0.002)


async def joined_channels(client: Redis) -> set[str]:
    names = await client.pubsub_shardchannels()
    return {name.decode() for name in names} - {"vision:control"}


@pytest.mark.gen_test
async def test_one_connection_serves_any_number_of_missions(ear: Ear, client: Redis):
    for number in range(50):
        ear.live.join(f"m{number}")
    async with asyncio.timeout(5):
        while len(await joined_channels(client)) < 50:
            await asyncio.sleep(0.002)
    assert len(await client.client_list(_type="pubsub")) == 1


@pytest.mark.gen_test
async def test_nothing_is_heard_of_a_mission_that_was_left(
    ear: Ear, mission: Mission, client: Redis
):
    batches = follow(ear.hub)
    await mission.add(1)
    await anext(batches)
    await joined(ear, client)
    await batches.aclose()
    async with asyncio.timeout(5):
        while await subscriptions(client):
            await asyncio.sleep(0.002)
    heard = len(ear.batches)
    await mission.add(1, final=True)
    await ear.live.wish(Wish("m"))  # what comes after it on the same connection has been heard
    await until(lambda: ear.wishes)
    assert len(ear.batches) == heard


@pytest.mark.gen_test
async def test_wish_reaches_every_process_and_says_what_to_end(
    ear: Ear, redis_url: str, client: Redis
):
    await listening(client)
    other = LiveFeed(connect(redis_url))
    await other.wish(Wish("m"))
    await other.wish(Wish("m", "node é"))
    await until(lambda: len(ear.wishes) == 2)
    assert ear.wishes == [Wish("m", None), Wish("m", "node é")]
    await other._redis.aclose()


@pytest.mark.gen_test
async def test_wishes_are_heard_again_after_a_lost_connection(
    ear: Ear, client: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_module, "RETRY_SECONDS", 0.01)
    await listening(client)
    await kill_feeds(client)
    await listening(client)
    await ear.live.wish(Wish("m"))
    await until(lambda: ear.wishes == [Wish("m")])


@pytest.mark.gen_test
async def test_wish_that_cannot_be_told_is_an_error_of_ours(tmp_path: Path):
    redis = connect(f"unix://{tmp_path}/nobody")
    with pytest.raises(StoreUnavailable):
        await LiveFeed(redis).wish(Wish("m"))
    await redis.aclose()
