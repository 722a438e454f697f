"""Whose a mission is: entries of the queue, claims that came to nothing, ends of logs."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from tests.unit.missions.writing import RUNNING
from vision.missions.events import Batch, MissionStatus, NodeStatus, Outcome
from vision.missions.log import (
    Append,
    MissionLog,
    Spec,
    channel,
    decode_spec,
    encode_spec,
    parse_live,
)

DONE = Outcome(NodeStatus.SUCCEEDED, "text")


async def claims(log: MissionLog, entry: bytes = b"1-1", replaces: bytes = b"") -> int | None:
    """How many claims in a row it is now; None when it may not be run."""
    claim = await log.acquire("m", entry, replaces)
    return None if claim is None else claim.claims


async def write(log: MissionLog, epoch: int, seq: int, outcome: Outcome) -> None:
    batch = Batch(seq, [b"{}"], final=False)
    assert await log.append([Append("m", epoch, batch, {"a": outcome})]) == [None]


# --- the entries of the queue ---------------------------------------------------------------------


@pytest.mark.gen_test
async def test_mission_is_recorded_once(log: MissionLog):
    assert await log.create("m", b"first", 1)
    assert not await log.create("m", b"second", 2)
    record = await log.record("m")
    assert (record.spec, record.created) == (b"first", 1)


@pytest.mark.gen_test
async def test_mission_belongs_to_the_entry_that_was_taken_first(log: MissionLog):
    await log.create("m", b"", 1)
    assert await claims(log, b"2-1") == 1
    assert await claims(log, b"1-1") is None
    assert await claims(log, b"2-1") == 2


@pytest.mark.gen_test
@pytest.mark.parametrize("replaces", [b"2-1", b"1-1 2-1 3-1", b"2-1 1-1"])
async def test_entry_that_replaces_the_owners_is_the_owner_from_then_on(
    log: MissionLog, replaces: bytes
):
    await log.create("m", b"", 1)
    await claims(log, b"2-1")
    assert await claims(log, b"9-1", replaces) == 2
    assert await claims(log, b"2-1") is None


@pytest.mark.gen_test
@pytest.mark.parametrize("other", [b"2-10", b"12-1", b"2-", b"2"])
async def test_entry_that_only_looks_like_the_owners_is_another(log: MissionLog, other: bytes):
    await log.create("m", b"", 1)
    await claims(log, b"2-1")
    assert await claims(log, other) is None
    assert await claims(log, b"9-1", other) is None


@pytest.mark.gen_test
async def test_who_only_writes_an_end_does_not_make_the_mission_its_own(log: MissionLog):
    await log.create("m", b"", 1)
    await claims(log, b"2-1")
    assert await claims(log, b"") == 0
    assert await claims(log, b"2-1") == 2


# --- claims in a row ------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_claims_are_counted_until_a_node_ends(log: MissionLog):
    await log.create("m", b"", 1)
    assert [await claims(log) for _ in range(3)] == [1, 2, 3]
    await write(log, 3, 1, RUNNING)
    assert await claims(log) == 4
    await write(log, 4, 2, DONE)
    assert await claims(log) == 1


@pytest.mark.gen_test
async def test_claim_that_was_given_up_in_good_order_does_not_count(log: MissionLog):
    await log.create("m", b"", 1)
    await claims(log)
    assert await claims(log) == 2
    assert await log.release("m", 2)
    assert (await log.record("m")).status is MissionStatus.QUEUED
    assert await claims(log) == 1


@pytest.mark.gen_test
async def test_only_the_last_owner_can_give_a_mission_up(log: MissionLog):
    await log.create("m", b"", 1)
    await claims(log)
    await claims(log)
    assert not await log.release("m", 1)
    assert (await log.record("m")).status is MissionStatus.RUNNING
    assert await claims(log) == 3


@pytest.mark.gen_test
async def test_who_gave_a_mission_up_can_still_write_until_another_has_it(log: MissionLog):
    await log.create("m", b"", 1)
    await claims(log)
    await log.release("m", 1)
    await write(log, 1, 1, RUNNING)
    assert (await log.record("m")).seq == 1


# --- ends, specs, the feed ------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_ends_of_many_missions_are_asked_for_at_once(log: MissionLog):
    for name in ("m", "n"):
        await log.create(name, b"", 1)
    await claims(log)
    await write(log, 1, 1, RUNNING)
    assert await log.ends(["n", "gone", "m"]) == [0, None, 1]


def test_spec_comes_back_as_it_was():
    spec = Spec([{"id": "é", "mid": "m", "prompt": "x", "params": {"n": 1.5}}], "base")
    assert decode_spec(encode_spec(spec)) == spec
    assert decode_spec(encode_spec(Spec([]))).base_mission_id is None


@pytest.mark.gen_test
async def test_base_of_a_claim_has_its_outcomes_and_none_when_it_is_gone(log: MissionLog):
    await log.create("m", b"", 1)
    await claims(log)
    await write(log, 1, 1, DONE)
    for base, outcomes in (("m", {"a": DONE}), ("gone", {}), (None, {})):
        name = f"on {base}"
        await log.create(name, encode_spec(Spec([], base)), 1)
        claim = await log.acquire(name)
        assert claim is not None
        assert await log.base_of(claim) == outcomes


@pytest.mark.gen_test
@pytest.mark.parametrize("status", [None, MissionStatus.SUCCEEDED])
async def test_what_is_appended_is_told_on_the_missions_channel_as_it_is(
    log: MissionLog, client: Redis, status: MissionStatus | None
):
    await log.create("m", b"", 1)
    await claims(log)
    async with client.pubsub() as pubsub:
        await pubsub.ssubscribe(channel("m"))
        assert await pubsub.get_message(timeout=5)
        batch = Batch(1, [b'{"text":"\\n"}', b"{}"], final=status is not None)
        told = Append("m", 1, batch, {}, status, 9)
        refused = Append("m", 7, batch, {}, status, 9)
        empty = Append("m", 1, Batch(3, [], final=False), {"a": RUNNING})
        await log.append([refused, told, empty] if status is None else [refused, told])
        message = await pubsub.get_message(timeout=5)
        heard = parse_live(message["data"])
        assert (heard.first, heard.events, heard.final) == (1, batch.events, batch.final)
        assert await pubsub.get_message(timeout=0.05) is None
