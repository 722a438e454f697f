"""Whoever joins whenever, however slow, gets exactly what is behind its cursor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from tests.unit.missions.watching import Mission, follow, numbers
from vision.missions import watch as watch_module
from vision.missions.events import Batch
from vision.missions.hub import Hub
from vision.missions.log import MissionLog


@dataclass(frozen=True, slots=True)
class Step:
    """The runner writes so many events; the loop turns so often; or another process wrote them."""

    count: int
    pause: int
    live: bool


@dataclass(frozen=True, slots=True)
class Join:
    """Somebody subscribes before a step, from a cursor, and takes so many turns over a batch."""

    step: int
    after: int
    slow: int


_STEPS = st.lists(st.builds(Step, st.integers(1, 3), st.integers(0, 3), st.booleans()), max_size=10)
_JOINS = st.lists(st.builds(Join, st.integers(0, 10), st.integers(0, 30), st.integers(0, 3)))


# Every example empties the store by itself.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, joins=_JOINS, bound=st.integers(10, 80))
def test_every_subscriber_gets_exactly_the_rest(
    io_loop: IOLoop,
    client: Redis,
    log: MissionLog,
    steps: list[Step],
    joins: list[Join],
    bound: int,
):
    async def scenario() -> None:
        await client.flushdb()
        hub = Hub(log, ignore, ignore)
        await play(Mission(log, hub), [*steps, Step(1, 0, live=True)], joins)
        assert hub._feeds == {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_module, "QUEUE_BYTES", bound)
        io_loop.run_sync(scenario)


def ignore(mission_id: str) -> None:
    """No feed comes from elsewhere: the gaps it would leave are what is looked for here."""


async def play(mission: Mission, steps: list[Step], joins: list[Join]) -> None:
    total = sum(step.count for step in steps)
    await mission.begin()
    watchers = []
    for place, step in enumerate(steps):
        for join in joins:
            if join.step % len(steps) == place:
                cursor = join.after % (mission.seq + 1)
                watchers.append(asyncio.create_task(watch(mission.hub, cursor, join.slow, total)))
        await mission.add(step.count, final=place == len(steps) - 1, live=step.live)
        await turns(step.pause)
    await asyncio.gather(*watchers)


async def watch(hub: Hub, after: int, slow: int, total: int) -> None:
    got: list[bytes] = []
    if slow == 0:  # takes everything at once: batches come past its queue
        await (await hub.subscribe("m", after)).push(Quick(got))
        assert got == numbers(after + 1, total)
        return
    async for batch in follow(hub, after):
        got += batch.events
        await turns(slow)
    assert got == numbers(after + 1, total)


class Quick:
    """A client that has always taken everything."""

    def __init__(self, got: list[bytes]) -> None:
        self._got = got

    def write(self, batch: Batch) -> bool:
        self._got += batch.events
        return True

    async def drained(self) -> None:
        raise AssertionError("there was nothing to wait for")


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
