"""Round trips on a kept connection: every caller gets the answers to its own commands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError, ResponseError

from vision.errors import StoreUnavailable
from vision.redis_edge import connect
from vision.redis_trips import Trips, trips


@pytest.fixture
def way(client: Redis) -> Trips:
    return trips(client)


async def connection_of(way: Trips) -> int:
    [number] = await way.send([("CLIENT", "ID")])
    return int(number)


@pytest.mark.gen_test
async def test_answers_come_in_the_order_of_the_commands_refusals_among_them(way: Trips):
    good, bad, last = await way.send([("SET", "k", "x"), ("INCR", "k"), ("GET", "k")])
    assert (bool(good), last) == (True, b"x")
    assert isinstance(bad, ResponseError)


@pytest.mark.gen_test
async def test_answers_are_as_the_client_gives_them(way: Trips, client: Redis):
    await client.xadd("s", {"a": "1"}, id="1-0")
    [entries] = await way.send([("XRANGE", "s", "-", "+")])
    assert entries == await client.xrange("s")


@pytest.mark.gen_test
async def test_one_connection_serves_all_trips(way: Trips):
    assert len({await connection_of(way) for _ in range(3)}) == 1


@pytest.mark.gen_test
async def test_callers_at_the_same_time_get_their_own_answers(way: Trips):
    answers = await asyncio.gather(*(way.send([("ECHO", str(n))] * 3) for n in range(20)))
    assert answers == [[str(n).encode()] * 3 for n in range(20)]


@pytest.mark.gen_test
async def test_connection_that_redis_has_closed_is_replaced_without_a_word(
    way: Trips, client: Redis
):
    before = await connection_of(way)
    await client.client_kill_filter(_id=str(before))
    assert await connection_of(way) != before


@pytest.mark.gen_test
async def test_answers_that_a_cancelled_trip_left_behind_are_nobodys(way: Trips, client: Redis):
    before = await connection_of(way)
    waiting = asyncio.create_task(way.send([("BLPOP", "empty", 0), ("ECHO", "old")]))
    async with asyncio.timeout(5):
        while not (await client.info("clients"))["blocked_clients"]:
            await asyncio.sleep(0.001)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert await way.send([("ECHO", "new")]) == [b"new"]
    assert await connection_of(way) != before


@pytest.mark.gen_test
async def test_redis_that_is_away_is_unavailable(tmp_path: Path):
    client = connect(f"unix://{tmp_path}/nobody")
    with pytest.raises(StoreUnavailable):
        await trips(client).send([("PING",)])
    await client.aclose()


@pytest.mark.gen_test
async def test_connection_to_a_primary_that_is_one_no_more_is_given_up(way: Trips):
    before = await connection_of(way)
    refusing = "return {redis.error_reply('READONLY You can not write against a replica.')}"
    [[refusal]] = await way.send([("EVAL", refusing, 0)])
    assert isinstance(refusal, ReadOnlyError)
    assert await connection_of(way) != before
