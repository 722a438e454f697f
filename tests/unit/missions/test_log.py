"""A mission's record in a real Valkey: numbers, epochs, cursors and what is kept beside them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from tests.unit.missions.conftest import TTL_MS
from vision.errors import StaleEpoch, StoreUnavailable, UnknownCursor, UnknownMission
from vision.missions import log as log_module
from vision.missions.events import Batch, MissionStatus, NodeStatus, Outcome
from vision.missions.log import UNFINISHED_TTL_MS, Append, Claim, MissionLog
from vision.redis_edge import connect

RUNNING = Outcome(NodeStatus.RUNNING, attempts=1, started=5)
DONE = Outcome(NodeStatus.SUCCEEDED, "text", 1, 5, 6)


async def begun(log: MissionLog, mission_id: str = "m") -> Claim:
    await log.create(mission_id, b"[spec]", 1)
    claim = await log.acquire(mission_id)
    assert claim is not None
    return claim


def events(first: int, count: int) -> Batch:
    return Batch(first, [b'{"seq":%d}' % seq for seq in range(first, first + count)], final=False)


def append(first: int, count: int, *, epoch: int = 1, mission_id: str = "m") -> Append:
    return Append(mission_id, epoch, events(first, count))


def last(first: int, count: int, **outcomes: Outcome) -> Append:
    batch = events(first, count)
    return Append("m", 1, batch, outcomes, MissionStatus.SUCCEEDED, 9)


async def write(log: MissionLog, *appends: Append) -> None:
    assert await log.append(appends) == [None] * len(appends)


# --- the head -------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_new_mission_is_queued_and_has_nothing(log: MissionLog):
    await log.create("m", b"[spec]", 17)
    record = await log.record("m")
    assert (record.status, record.seq, record.spec) == (MissionStatus.QUEUED, 0, b"[spec]")
    assert (record.created, record.finished, record.outcomes) == (17, None, {})
    assert (await log.read("m", 0)).events == ()


@pytest.mark.gen_test
async def test_every_acquiring_raises_the_epoch_and_brings_what_is_known(log: MissionLog):
    first = await begun(log)
    assert first == Claim("m", 1, 0, b"[spec]", {})
    await write(log, Append("m", 1, events(1, 3), {"a": DONE, "ü": RUNNING}))
    assert await log.acquire("m") == Claim("m", 2, 3, b"[spec]", {"a": DONE, "ü": RUNNING})
    assert (await log.record("m")).status is MissionStatus.RUNNING


@pytest.mark.gen_test
async def test_mission_that_has_ended_or_never_was_cannot_be_acquired(log: MissionLog):
    await begun(log)
    await write(log, last(1, 1))
    assert await log.acquire("m") is None
    assert await log.acquire("other") is None


@pytest.mark.gen_test
async def test_forgotten_mission_leaves_nothing_behind(log: MissionLog, client: Redis):
    await begun(log)
    await write(log, Append("m", 1, events(1, 1), {"a": DONE}))
    await log.forget("m")
    assert await client.keys() == []


@pytest.mark.gen_test
async def test_unknown_mission_has_no_record_and_no_events(log: MissionLog):
    for call in (log.record("no"), log.read("no", 0)):
        with pytest.raises(UnknownMission) as refused:
            await call
        expected = 'missionId: no mission with id "no", or it has expired'
        assert refused.value.message == expected


# --- appending ------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_appended_events_are_read_back_in_order_with_their_outcomes(log: MissionLog):
    await begun(log)
    await write(log, append(1, 2), Append("m", 1, events(3, 1), {"a": DONE}), append(4, 3))
    page = await log.read("m", 0)
    assert (page.first, page.last, page.events) == (1, 6, events(1, 6).events)
    assert (await log.record("m")).outcomes == {"a": DONE}
    assert (await log.record("m")).seq == 6


@pytest.mark.gen_test
async def test_outcomes_alone_are_stored_and_make_no_event(log: MissionLog):
    await begun(log)
    await write(log, Append("m", 1, events(1, 0), {"a": RUNNING}), append(1, 1))
    record = await log.record("m")
    assert (record.outcomes, record.seq) == ({"a": RUNNING}, 1)


@pytest.mark.gen_test
async def test_append_of_an_old_epoch_is_refused_whole(log: MissionLog):
    await begun(log)
    await log.acquire("m")
    [refusal] = await log.append([Append("m", 1, events(1, 1), {"a": DONE})])
    assert isinstance(refusal, StaleEpoch)
    assert refusal.message == "another runner owns mission m"
    record = await log.record("m")
    assert (record.seq, record.outcomes) == (0, {})


@pytest.mark.gen_test
async def test_refusal_of_one_mission_does_not_touch_the_others(log: MissionLog):
    for mission_id in ("a", "b", "c"):
        await begun(log, mission_id)
    await log.acquire("b")
    results = await log.append([append(1, 1, mission_id=name) for name in ("a", "b", "c")])
    assert [type(result) for result in results] == [type(None), StaleEpoch, type(None)]
    assert [(await log.record(name)).seq for name in ("a", "b", "c")] == [1, 0, 1]


@pytest.mark.gen_test
async def test_what_goes_wrong_with_one_mission_is_that_ones_answer(log: MissionLog, client: Redis):
    for mission_id in ("a", "b", "c"):
        await begun(log, mission_id)
    await client.set("vision:{b}:log", "not a stream")
    results = await log.append([append(1, 1, mission_id=name) for name in ("a", "b", "c")])
    assert [type(result) for result in results] == [type(None), StaleEpoch, type(None)]
    assert "WRONGTYPE" in str(results[1])
    assert [(await log.record(name)).seq for name in ("a", "b", "c")] == [1, 0, 1]


@pytest.mark.gen_test
async def test_more_missions_than_one_command_takes_are_written_in_one_go(
    log: MissionLog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(log, "_together", 2)
    names = list("abcde")
    for mission_id in names:
        await begun(log, mission_id)
    await log.acquire("d")
    results = await log.append([append(1, 1, mission_id=name) for name in names])
    assert [result is None for result in results] == [True, True, True, False, True]
    assert [(await log.record(name)).seq for name in names] == [1, 1, 1, 0, 1]


@pytest.mark.gen_test
async def test_repeated_append_changes_nothing(log: MissionLog, client: Redis):
    await begun(log)
    batch = Append("m", 1, events(1, 2), {"a": DONE})
    await write(log, batch)
    before = await client.dump("vision:{m}:log"), await client.dump("vision:{m}:nodes")
    await write(log, batch, batch)
    assert (await client.dump("vision:{m}:log"), await client.dump("vision:{m}:nodes")) == before
    assert (await log.record("m")).seq == 2


@pytest.mark.gen_test
async def test_append_after_a_gap_is_refused_as_a_log_that_has_lost_its_end(log: MissionLog):
    await begun(log)
    [refusal] = await log.append([append(2, 1)])
    assert isinstance(refusal, StaleEpoch)
    assert refusal.message == "the log of mission m has lost its end"


@pytest.mark.gen_test
async def test_append_to_a_mission_that_is_gone_is_refused(log: MissionLog, client: Redis):
    await begun(log)
    await client.flushdb()
    [refusal] = await log.append([append(1, 1)])
    assert isinstance(refusal, StaleEpoch)
    assert await client.keys() == []


@pytest.mark.gen_test
async def test_redis_that_has_forgotten_the_script_is_given_it_again(
    log: MissionLog, client: Redis
):
    await begun(log)
    await write(log, append(1, 1))
    await client.script_flush()
    await write(log, append(2, 1), append(3, 1))
    assert (await log.read("m", 0)).events == events(1, 3).events


@pytest.mark.gen_test
async def test_of_two_runners_only_the_later_one_writes(log: MissionLog):
    """Whatever the order in which their appends arrive, the log has one runner's events."""
    await begun(log)
    claims = await asyncio.gather(*(log.acquire("m") for _ in range(5)))
    epochs = [claim.epoch for claim in claims if claim is not None]
    assert sorted(epochs) == [2, 3, 4, 5, 6]
    results = await log.append([append(1, 1, epoch=epoch) for epoch in epochs])
    written = [epoch for epoch, result in zip(epochs, results, strict=True) if result is None]
    assert written == [6]


# --- keeping --------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_mission_that_runs_is_kept_for_a_week_and_one_that_ended_for_its_time(
    log: MissionLog, client: Redis
):
    await begun(log)
    await write(log, Append("m", 1, events(1, 1), {"a": RUNNING}))
    keys = sorted(await client.keys())
    assert keys == [b"vision:{m}:head", b"vision:{m}:log", b"vision:{m}:nodes"]
    for key in keys:
        assert TTL_MS < await client.pttl(key) <= UNFINISHED_TTL_MS
    await write(log, last(2, 1, a=DONE))
    for key in keys:
        assert 0 < await client.pttl(key) <= TTL_MS


@pytest.mark.gen_test
async def test_last_append_ends_the_mission(log: MissionLog):
    await begun(log)
    await write(log, append(1, 1), last(2, 2, a=DONE))
    record = await log.record("m")
    assert (record.status, record.finished) == (MissionStatus.SUCCEEDED, 9)
    assert record.outcomes == {"a": DONE}


@pytest.mark.gen_test
async def test_expired_mission_is_unknown(client: Redis):
    log = MissionLog(client, mission_ttl_ms=1)
    await begun(log)
    await write(log, last(1, 1))
    async with asyncio.timeout(10):
        while await client.exists("vision:{m}:head"):
            await asyncio.sleep(0.001)
    with pytest.raises(UnknownMission):
        await log.read("m", 0)
    assert await client.keys() == []


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_cursor_beyond_the_last_event_is_refused(log: MissionLog):
    await begun(log)
    await write(log, append(1, 3))
    assert (await log.read("m", 3)).events == ()
    with pytest.raises(UnknownCursor) as refused:
        await log.read("m", 4)
    assert refused.value.message == "after: the last event of the mission is 3"


@pytest.mark.gen_test
async def test_only_the_page_with_the_last_event_is_final(log: MissionLog, monkeypatch):
    monkeypatch.setattr(log_module, "PAGE_ENTRIES", 2)
    await begun(log)
    await write(log, append(1, 2), append(3, 2))
    assert not (await log.read("m", 0)).final
    await write(log, last(5, 1))
    pages = [await log.read("m", after) for after in (0, 2, 4, 5)]
    assert [(page.first, page.last, page.final) for page in pages] == [
        (1, 4, False),
        (3, 5, True),
        (5, 5, True),
        (6, 5, True),
    ]


@pytest.mark.gen_test
async def test_store_that_is_away_is_an_error_of_ours(tmp_path):
    redis = connect(f"unix://{tmp_path}/nobody")
    log = MissionLog(redis, mission_ttl_ms=TTL_MS)
    calls = (log.create("m", b"", 1), log.forget("m"), log.acquire("m"), log.read("m", 0))
    for call in (*calls, log.record("m"), log.append([append(1, 1)])):
        with pytest.raises(StoreUnavailable):
            await call
    await redis.aclose()


# Every example empties the store by itself.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 4), max_size=8), cursor=st.integers(0, 40))
def test_reading_from_any_cursor_gives_exactly_what_is_behind_it(
    io_loop: IOLoop, client: Redis, log: MissionLog, sizes: list[int], cursor: int
):
    """However the events were batched into entries."""
    total = sum(sizes)
    after = cursor % (total + 1)

    async def scenario() -> Batch:
        await client.flushdb()
        await begun(log)
        first = 1
        for size in sizes:
            await write(log, append(first, size))
            first += size
        return await log.read("m", after)

    page = io_loop.run_sync(scenario)
    assert (page.first, page.last) == (after + 1, total)
    assert page.events == events(after + 1, total - after).events
