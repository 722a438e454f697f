"""The same request, sent again, is the same mission, whatever became of the first one."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from tests.contract.conftest import chat
from tests.unit.missions.conftest import TTL_MS
from tests.unit.missions.team import Process, Team, emptied, numbered
from tests.upstream import ScriptedUpstream
from vision.errors import IdempotencyConflict, InvalidRequest, StoreUnavailable
from vision.missions.idempotency import MAX_LENGTH, IdempotencyKey, IdempotencyKeys
from vision.missions.log import Spec, encode_spec
from vision.redis_edge import connect

KEY = IdempotencyKey("key", "somebody", b"the body")
GRAPH = [chat("a", "go")]


@pytest.fixture
def keys(client: Redis) -> IdempotencyKeys:
    return IdempotencyKeys(client, ttl_ms=TTL_MS)


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_key_stands_for_the_first_mission_that_it_came_with(keys: IdempotencyKeys):
    assert await keys.claim(KEY, "first") == "first"
    assert await keys.claim(KEY, "second") == "first"


@pytest.mark.gen_test
async def test_key_with_another_body_is_refused_and_stays_what_it_was(keys: IdempotencyKeys):
    await keys.claim(KEY, "first")
    with pytest.raises(IdempotencyConflict, match=r"^Idempotency-Key: .*another body"):
        await keys.claim(IdempotencyKey("key", "somebody", b"another body"), "second")
    assert await keys.claim(KEY, "third") == "first"


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "other",
    [
        IdempotencyKey("key", "somebody else", b"the body"),
        IdempotencyKey("other", "somebody", b"the body"),
        IdempotencyKey("y", "somebody ke", b"the body"),
    ],
    ids=["of another client", "another one", "cut elsewhere"],
)
async def test_keys_do_not_get_in_each_others_way(keys: IdempotencyKeys, other: IdempotencyKey):
    await keys.claim(KEY, "first")
    assert await keys.claim(other, "second") == "second"


@pytest.mark.gen_test
async def test_key_is_kept_for_its_time_and_not_renewed_by_who_asks_again(
    keys: IdempotencyKeys, client: Redis
):
    await keys.claim(KEY, "first")
    [name] = await client.keys("vision:idempotency:*")
    assert 0 < await client.pttl(name) <= TTL_MS
    await client.pexpire(name, 1_000)
    await keys.claim(KEY, "second")
    assert await client.pttl(name) <= 1_000


@pytest.mark.gen_test
async def test_of_many_that_come_at_once_one_is_the_first(keys: IdempotencyKeys):
    names = [str(number) for number in range(50)]
    given = await asyncio.gather(*(keys.claim(KEY, name) for name in names))
    assert len(set(given)) == 1
    assert set(given) < set(names)


@pytest.mark.parametrize("key", ["", "x" * (MAX_LENGTH + 1), "é", "a\tb", "a\nb"])
def test_key_that_is_no_short_line_of_ascii_is_refused(key: str):
    with pytest.raises(InvalidRequest, match=r"^Idempotency-Key: must be 1 to 255 printable ASCII"):
        IdempotencyKey(key, "somebody", b"")


def test_longest_key_is_taken():
    assert len(IdempotencyKey("x" * MAX_LENGTH, "somebody", b"").key) == MAX_LENGTH


@pytest.mark.gen_test
async def test_store_that_is_away_is_an_error_of_ours(tmp_path):
    redis = connect(f"unix://{tmp_path}/nobody")
    with pytest.raises(StoreUnavailable):
        await IdempotencyKeys(redis, ttl_ms=TTL_MS).claim(KEY, "first")
    await redis.aclose()


# --- missions -------------------------------------------------------------------------------------


async def start(process: Process) -> str:
    return await process.services.missions.start(GRAPH, key=KEY)


async def ran_once(
    process: Process, mission_id: str, upstream: ScriptedUpstream, client: Redis
) -> None:
    assert numbered(await process.events(mission_id))
    assert await process.ended(mission_id) == {"": "succeeded", "a": "succeeded"}
    await emptied(client)
    assert [request.prompt for request in upstream.requests] == ["go"]


@pytest.mark.gen_test
async def test_starts_that_come_at_once_to_two_processes_are_one_mission_that_runs_once(
    team: Team, upstream: ScriptedUpstream, client: Redis
):
    processes = [await team.process(), await team.process()] * 10
    [mission_id] = set(await asyncio.gather(*map(start, processes)))
    await ran_once(processes[0], mission_id, upstream, client)


@pytest.mark.gen_test
async def test_mission_that_has_ended_is_not_run_again(
    team: Team, upstream: ScriptedUpstream, client: Redis
):
    process = await team.process()
    mission_id = await start(process)
    await process.events(mission_id)
    assert await start(process) == mission_id
    await ran_once(process, mission_id, upstream, client)


@pytest.mark.gen_test
async def test_other_body_starts_nothing(team: Team, upstream: ScriptedUpstream, client: Redis):
    process = await team.process()
    mission_id = await start(process)
    await process.events(mission_id)
    with pytest.raises(IdempotencyConflict):
        await process.services.missions.start(
            [chat("b", "other")], key=IdempotencyKey("key", "somebody", b"another body")
        )
    assert len(await client.keys("vision:{*}:head")) == 1
    await ran_once(process, mission_id, upstream, client)


@pytest.mark.gen_test
async def test_start_that_was_cut_off_before_it_was_recorded_is_completed_by_the_next(
    team: Team, upstream: ScriptedUpstream, client: Redis, keys: IdempotencyKeys
):
    await keys.claim(KEY, "f" * 32)
    process = await team.process()
    assert await start(process) == "f" * 32
    await ran_once(process, "f" * 32, upstream, client)


@pytest.mark.gen_test
async def test_start_that_was_cut_off_before_it_was_queued_is_completed_by_the_next(
    team: Team, upstream: ScriptedUpstream, client: Redis, keys: IdempotencyKeys
):
    process = await team.process()
    await keys.claim(KEY, "f" * 32)
    await process.services.missions._log.create("f" * 32, encode_spec(Spec(GRAPH)), 1)
    assert await start(process) == "f" * 32
    await ran_once(process, "f" * 32, upstream, client)


@pytest.mark.gen_test
async def test_request_that_is_refused_uses_up_no_key(team: Team, client: Redis):
    process = await team.process()
    with pytest.raises(InvalidRequest):
        await process.services.missions.start([chat("a", "{{nobody}}")], key=KEY)
    assert await client.keys("*idempotency*") == []
