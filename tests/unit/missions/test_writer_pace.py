"""When the writer writes: at once, after a rest, or with what comes next; on a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tests.unit.missions.writing import RUNNING, Published, in_flight, open_writing, token
from vision.missions import writer as writer_module
from vision.missions.events import Batch, NodeStarted, Outcome
from vision.missions.log import MissionLog
from vision.missions.writer import BUSY, LogWriter

NEVER = 3600.0
PATIENCE = 10.0


async def outcomes_of(log: MissionLog, mission_id: str) -> Mapping[str, Outcome]:
    """As soon as there are some in the log."""
    async with asyncio.timeout(PATIENCE):
        while not (outcomes := (await log.record(mission_id)).outcomes):
            await asyncio.sleep(0.001)
    return outcomes


@pytest.mark.gen_test
async def test_busy_writer_rests_after_a_write_so_that_the_next_one_is_larger(
    log: MissionLog, writer: LogWriter, published: Published, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "REST_SECONDS", NEVER)
    writings = [await open_writing(log, str(number)) for number in range(BUSY)]
    for writing in writings:
        writer.put(writing, token("a", "1"))
    async with asyncio.timeout(PATIENCE):
        while len(published.batches) < BUSY:
            await asyncio.sleep(0.001)
    for writing in writings:
        writer.put(writing, token("a", "2"))
    await in_flight()
    assert writer.writes == 1


@pytest.mark.gen_test
async def test_writer_that_never_comes_to_a_pause_rests_too(
    log: MissionLog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "REST_SECONDS", NEVER)
    rests = asyncio.Event()
    writing = await open_writing(log)

    def more_to_write(mission_id: str, batch: Batch) -> None:
        writer.put(writing, token("a", "1"))
        if writer.writes == BUSY:
            rests.set()

    writer = LogWriter(log, more_to_write)
    running = asyncio.create_task(writer.run())
    writer.put(writing, token("a", "1"))
    async with asyncio.timeout(PATIENCE):
        await rests.wait()
    await in_flight()
    assert writer.writes == BUSY
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.gen_test
async def test_writer_that_pauses_now_and_then_writes_at_once(
    log: MissionLog, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "REST_SECONDS", NEVER)
    writing = await open_writing(log)
    async with asyncio.timeout(PATIENCE):
        for _ in range(2 * BUSY):
            writer.put(writing, token("a", "1"))
            await writer.settled(writing)


@pytest.mark.gen_test
async def test_writer_that_is_not_busy_writes_at_once(
    log: MissionLog, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "REST_SECONDS", NEVER)
    writings = [await open_writing(log, str(number)) for number in range(BUSY - 1)]
    for text in "12":
        for writing in writings:
            writer.put(writing, token("a", text))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*map(writer.settled, writings))


@pytest.mark.gen_test
async def test_that_a_node_has_begun_is_written_with_what_comes_next(
    log: MissionLog, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "BEGUN_SECONDS", NEVER)
    begun, other = await open_writing(log), await open_writing(log, "other")
    writer.put(begun, NodeStarted("a", RUNNING))
    writer.put(other, token("a", "1"))
    await writer.settled(other)
    assert (await log.record("m")).outcomes == {}
    writer.put(begun, token("a", "1"))
    await writer.settled(begun)
    assert (await log.record("m")).outcomes == {"a": RUNNING}
    assert writer.writes == 2


@pytest.mark.gen_test
async def test_that_a_node_has_begun_is_written_by_itself_where_nothing_comes_soon(
    log: MissionLog, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "BEGUN_SECONDS", 0.01)
    written, waiting = await open_writing(log), await open_writing(log, "waiting")
    for writing in (written, waiting):
        writer.put(writing, NodeStarted("a", RUNNING))
    writer.put(written, token("a", "1"))
    assert await outcomes_of(log, "waiting") == {"a": RUNNING}
    assert writer.writes == 2


@pytest.mark.gen_test
async def test_nodes_that_begin_one_after_the_other_are_each_written(
    log: MissionLog, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "BEGUN_SECONDS", 0.01)
    for name in ("first", "second"):
        writer.put(await open_writing(log, name), NodeStarted("a", RUNNING))
        assert await outcomes_of(log, name) == {"a": RUNNING}


@pytest.mark.gen_test
async def test_runner_that_lost_its_mission_does_not_write_that_a_node_has_begun(
    log: MissionLog, writer: LogWriter, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer_module, "BEGUN_SECONDS", 0.01)
    lost, other = await open_writing(log), await open_writing(log, "other")
    writer.put(lost, NodeStarted("a", RUNNING))
    writer.put(other, NodeStarted("a", RUNNING))
    writer.drop(lost)
    assert await outcomes_of(log, "other") == {"a": RUNNING}
    assert (await log.record("m")).outcomes == {}
