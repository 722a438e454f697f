"""Commands of many callers share a round trip, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from vision import redis_edge
from vision.errors import StoreUnavailable
from vision.redis_batching import MAX_CALLERS, BatchedRedis
from vision.redis_edge import connect
from vision.redis_trips import Command


@pytest.fixture
def calls(client: Redis) -> BatchedRedis:
    return BatchedRedis(client)


@pytest.fixture
def trips(calls: BatchedRedis, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many commands each round trip had."""
    counts: list[int] = []
    send = calls._way.send

    async def noted(commands: Sequence[Command]) -> list[Any]:
        counts.append(len(commands))
        return await send(commands)

    monkeypatch.setattr(calls._way, "send", noted)
    return counts


@pytest.mark.gen_test
async def test_what_is_asked_together_goes_together_and_everyone_gets_their_own(
    calls: BatchedRedis, trips: list[int]
):
    answers = await asyncio.gather(*(calls.call("ECHO", str(n)) for n in range(MAX_CALLERS)))
    assert answers == [str(n).encode() for n in range(MAX_CALLERS)]
    assert trips == [MAX_CALLERS]


@pytest.mark.gen_test
async def test_more_callers_than_fit_come_in_the_next_trip(calls: BatchedRedis, trips: list[int]):
    await asyncio.gather(*(calls.call("ECHO", "x") for _ in range(MAX_CALLERS + 1)))
    assert trips == [MAX_CALLERS, 1]


@pytest.mark.gen_test
async def test_one_callers_commands_run_in_order(calls: BatchedRedis):
    commands = [("SET", "k", n) for n in range(3)]
    assert (await calls.call_all(*commands, ("GET", "k")))[-1] == b"2"


@pytest.mark.gen_test
async def test_error_of_one_is_no_error_of_another(calls: BatchedRedis):
    await calls.call("SET", "k", "text")
    good, bad = await asyncio.gather(
        calls.call("GET", "k"), calls.call("INCR", "k"), return_exceptions=True
    )
    assert good == b"text"
    assert isinstance(bad, ResponseError)


@pytest.mark.gen_test
async def test_caller_that_leaves_takes_nobody_along(calls: BatchedRedis):
    first, second = (asyncio.create_task(calls.call("ECHO", each)) for each in "ab")
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b"b"
    assert first.cancelled()
    assert await calls.call("ECHO", "c") == b"c"


@pytest.mark.gen_test
async def test_script_that_redis_has_forgotten_is_loaded_again(calls: BatchedRedis, client: Redis):
    script = "return ARGV[1] .. KEYS[1]"
    assert await calls.evaluate(script, ["k"], ["a"]) == b"ak"
    await client.script_flush()
    assert await calls.evaluate(script, ["k"], ["b"]) == b"bk"


@pytest.mark.gen_test
async def test_redis_that_does_not_answer_in_time_is_unavailable_to_all_of_the_trip(
    calls: BatchedRedis, client: Redis, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(redis_edge, "CALL_SECONDS", 0.05)
    await client.client_pause(300, all=True)
    asked = [calls.call("ECHO", "x") for _ in range(3)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    monkeypatch.setattr(redis_edge, "CALL_SECONDS", 5.0)
    assert await calls.call("ECHO", "back") == b"back"


@pytest.mark.gen_test
async def test_redis_that_is_away_is_unavailable(tmp_path: Path):
    redis = connect(f"unix://{tmp_path}/nobody")
    with pytest.raises(StoreUnavailable):
        await BatchedRedis(redis).call("PING")
    await redis.aclose()
