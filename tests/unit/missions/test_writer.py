"""Log first, then publish: the writer on a real Valkey."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from tests.unit.missions.writing import (
    FINISHED,
    RUNNING,
    Published,
    ended,
    in_flight,
    open_writing,
    token,
)
from vision.missions import writer as writer_module
from vision.missions.events import (
    MissionStatus,
    NodeRestarted,
    NodeStarted,
    NodeStatus,
    Outcome,
)
from vision.missions.log import MissionLog
from vision.missions.writer import LogWriter

# --- batches --------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_event_is_in_the_log_before_it_is_published(
    log: MissionLog, writer: LogWriter, published: Published
):
    """`Published` looks into the log at each batch."""
    writing = await open_writing(log)
    for event in (token("a", "1"), ended("a"), FINISHED):
        writer.put(writing, event)
        await writer.settled(writing)
    assert published.all == [["a:1"], ["a[DONE]"], ["[FINISHED]"]]
    assert [batch.final for batch in published.batches] == [False, False, True]


@pytest.mark.gen_test
async def test_what_arrives_while_a_write_is_in_flight_goes_out_in_the_next(
    log: MissionLog, writer: LogWriter, published: Published
):
    writing = await open_writing(log)
    writer.put(writing, token("a", "1"))
    await in_flight()
    for event in (token("a", "2"), token("b", "x"), token("a", "3"), ended("b")):
        writer.put(writing, event)
    await writer.settled(writing)
    assert published.all == [["a:1"], ["a:23", "b:x", "b[DONE]"]]


@pytest.mark.gen_test
async def test_text_that_waits_grows_and_keeps_its_last_end_reason(
    log: MissionLog, writer: LogWriter, published: Published
):
    writing = await open_writing(log)
    for event in (token("a", "x"), token("a", "y", "length"), token("a", "")):
        writer.put(writing, event)
    await writer.settled(writing)
    [event] = [json.loads(event) for event in published.batches[0].events]
    assert event["choices"][0] == {
        "text": "xy",
        "index": 0,
        "logprobs": None,
        "finish_reason": "length",
    }


@pytest.mark.gen_test
async def test_text_before_and_after_a_restart_is_not_mixed(
    log: MissionLog, writer: LogWriter, published: Published
):
    writing = await open_writing(log)
    for event in (token("a", "old"), NodeRestarted("a", RUNNING), token("a", "new"), ended("a")):
        writer.put(writing, event)
    await writer.settled(writing)
    assert published.all == [["a:old", "a[RESTARTED]", "a:new", "a[DONE]"]]


@pytest.mark.gen_test
async def test_outcomes_are_stored_with_their_events(
    log: MissionLog, writer: LogWriter, published: Published
):
    writing = await open_writing(log)
    writer.put(writing, NodeStarted("a", RUNNING))
    writer.put(writing, NodeStarted("b", RUNNING))
    writer.put(writing, ended("b"))
    await writer.settled(writing)
    outcomes = (await log.record("m")).outcomes
    assert outcomes == {"a": RUNNING, "b": Outcome(NodeStatus.SUCCEEDED)}
    assert published.all == [["b[DONE]"]]


@pytest.mark.gen_test
async def test_numbers_go_on_where_the_last_runner_stopped(
    log: MissionLog, writer: LogWriter, published: Published
):
    for text in ("1", "2"):
        writing = await open_writing(log)
        writer.put(writing, token("a", text))
        await writer.settled(writing)
    assert [batch.first for batch in published.batches] == [1, 2]


@pytest.mark.gen_test
async def test_missions_are_written_together_and_do_not_mix(
    log: MissionLog, writer: LogWriter, published: Published
):
    writings = [await open_writing(log, name) for name in "xyz"]
    for text in "12":
        for writing in writings:
            writer.put(writing, token(writing.mission_id, text))
    await asyncio.gather(*map(writer.settled, writings))
    assert sorted(published.all) == [["x:12"], ["y:12"], ["z:12"]]


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_writing_ends_when_the_last_event_is_in_the_log(log: MissionLog, writer: LogWriter):
    writing = await open_writing(log)
    writer.put(writing, token("a", "1"))
    await writer.settled(writing)
    assert not writing.ended.done()
    writer.put(writing, FINISHED)
    assert await writing.ended is True
    assert (await log.record("m")).status is MissionStatus.SUCCEEDED
    await writer.settled(writing)


@pytest.mark.gen_test
async def test_writing_of_an_old_epoch_ends_and_nothing_of_it_is_published(
    log: MissionLog, writer: LogWriter, published: Published
):
    old = await open_writing(log)
    new = await open_writing(log)
    writer.put(old, token("a", "old"))
    await writer.settled(old)
    assert await old.ended is False
    writer.put(new, token("a", "new"))
    await writer.settled(new)
    assert published.all == [["a:new"]]


@pytest.mark.gen_test
@pytest.mark.parametrize("first", ["old", "new"])
async def test_two_pens_on_one_mission_both_learn_how_it_stands(
    log: MissionLog, writer: LogWriter, published: Published, first: str
):
    """A runner and one who cancels, in one process and in one write, whoever came first."""
    old = await open_writing(log)
    new = await open_writing(log)
    for writing in (old, new) if first == "old" else (new, old):
        writer.put(writing, token("a", f"{writing.epoch}"))
    async with asyncio.timeout(5):
        await asyncio.gather(writer.settled(old), writer.settled(new))
        assert await old.ended is False
    assert published.all == [["a:2"]]


@pytest.mark.gen_test
async def test_dropped_writing_writes_no_more_and_frees_those_who_wait(
    log: MissionLog, writer: LogWriter, published: Published
):
    writing = await open_writing(log)
    waiting = asyncio.create_task(writer.settled(writing))
    await asyncio.sleep(0)
    writer.put(writing, token("a", "1"))
    writer.drop(writing)
    await waiting
    other = await open_writing(log, "other")
    await writer.settled(other)
    assert published.all == []


@pytest.mark.gen_test
async def test_settled_waits_for_what_was_put_before(log: MissionLog, writer: LogWriter):
    writing = await open_writing(log)
    for count in range(1, 30):
        writer.put(writing, ended(str(count)))
        await writer.settled(writing)
        assert (await log.record("m")).seq == count


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.gen_test
async def test_there_is_no_room_while_too_much_text_waits(
    log: MissionLog, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "MAX_PENDING_CHARS", 10)
    writing = await open_writing(log)
    await writer.room()
    writer.put(writing, token("a", "x" * 10))
    assert writer._has_room.is_set()
    writer.put(writing, token("b", "x"))
    assert not writer._has_room.is_set()
    await writer.room()
    await writer.settled(writing)
    assert (await log.record("m")).seq == 2


@pytest.mark.gen_test
async def test_dropping_gives_its_room_back_once(
    log: MissionLog, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "MAX_PENDING_CHARS", 10)
    writing = await open_writing(log)
    writer.put(writing, token("a", "x" * 11))
    writer.drop(writing)
    assert writer._has_room.is_set()
    writer.put(writing, token("a", "x"))
    await writer.settled(writing)
    assert writer._pending_chars == 0


@pytest.mark.gen_test
async def test_refused_write_is_repeated_until_redis_takes_it(
    log: MissionLog,
    writer: LogWriter,
    published: Published,
    client: Redis,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.001)
    writing = await open_writing(log)
    await client.config_set("maxmemory", 1)
    try:
        writer.put(writing, token("a", "1"))
        await until(lambda: log_refusals(client))
        writer.put(writing, token("a", "2"))
        assert published.all == []
    finally:
        await client.config_set("maxmemory", 0)
    await writer.settled(writing)
    assert published.all == [["a:1"], ["a:2"]]


async def log_refusals(client: Redis) -> bool:
    statistics = await client.info("errorstats")
    return any(name.endswith("OOM") for name in statistics)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await holds():
            await asyncio.sleep(0.001)
