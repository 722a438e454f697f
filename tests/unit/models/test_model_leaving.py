"""Calls that end early: by a timeout or because nobody wants them. The socket is closed at once."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import aclosing
from dataclasses import replace

import pytest
from asking import PATIENT, scene_at, until

from tests.upstream import NEVER, Reply


@pytest.mark.parametrize(
    ("reply", "bounds", "message"),
    [
        (Reply(before_headers=NEVER), {"first_token": 0.2}, "first token from there within 0.2 s"),
        (Reply(before_first=NEVER), {"first_token": 0.2}, "(first_token timeout)"),
        (Reply(tokens=0, stop_after=0, hang=True), {"first_token": 0.2}, "(first_token timeout)"),
        (Reply(stop_after=1, hang=True), {"idle": 0.2}, "nothing more from there within 0.2 s"),
        (Reply(tokens=1000, delay=0.05), {"total": 0.4}, "(total timeout)"),
        (Reply(before_headers=NEVER), {"total": 0.2}, "(total timeout)"),
    ],
)
@pytest.mark.gen_test
async def test_each_timeout_says_which_and_closes_the_socket(
    io_loop, there, reply, bounds, message
):
    there.upstream.on("slow", reply)
    began = time.monotonic()
    error = await there.failure_of(there.call("slow"), replace(PATIENT, **bounds))
    assert time.monotonic() - began < 2
    assert (error.code, error.retryable) == ("upstream_timeout", True)
    assert message in error.message
    await there.upstream.wait_closed(1)


@pytest.mark.gen_test
async def test_a_stream_that_goes_on_outlasts_the_idle_timeout(io_loop, there):
    there.upstream.on("long", Reply(tokens=30, delay=0.05))
    chunks = await there.collect(there.call("long"), replace(PATIENT, idle=1.0))
    assert sum(bool(chunk.text) for chunk in chunks) == 30


@pytest.mark.gen_test
async def test_a_reader_that_takes_its_time_is_no_idle_upstream(io_loop, there):
    there.upstream.on("long", Reply(tokens=12, delay=0.05))
    timeouts = replace(PATIENT, idle=1.0)
    async with aclosing(there.models.stream(there.call("long"), timeouts)) as stream:
        await anext(stream)
        await asyncio.sleep(1.2)
        rest = [chunk async for chunks in stream for chunk in chunks]
    assert "".join(chunk.text for chunk in rest).endswith("word11 ")


@pytest.fixture
def deaf():
    """A port that lets nobody connect: its queue of connections is full, and nobody accepts."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for caller in callers:
            caller.close()


@pytest.mark.gen_test
async def test_the_connect_timeout_says_so(io_loop, deaf):
    scene = scene_at(f"http://127.0.0.1:{deaf}/v1")
    error = await scene.failure_of(scene.call("x"), replace(PATIENT, connect=0.3))
    await scene.models.close()
    assert error.code == "upstream_timeout"
    assert error.message == "no connection to there within 0.3 s (connect timeout)"


@pytest.mark.gen_test
async def test_waiting_for_a_slot_does_not_count(io_loop, there):
    # Eight rounds of three: the last waits for 1.4 s, and a busy machine may be late by a second.
    there.upstream.on("long", Reply(before_headers=0.2))
    brief = replace(PATIENT, first_token=1.4, total=1.4)
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(there.collect(there.call(f"long {number}"), brief))
            for number in range(24)
        ]
    assert all(answer.result() for answer in asked)
    assert there.upstream.most_running == 3


async def started(upstream, coroutine, requests=1):
    task = asyncio.ensure_future(coroutine)
    await upstream.wait_requests(requests)
    return task


async def crowded(there, ask):
    """Calls that run in all slots and do not end, and one that waits for a slot."""
    there.upstream.on("go", Reply(before_headers=NEVER))
    running = [
        await started(there.upstream, ask(there.call("go")), number + 1) for number in range(3)
    ]
    waiting = asyncio.ensure_future(ask(there.call("go late")))
    await asyncio.sleep(0)  # it runs to its first wait
    assert there.slots.waiting == 1
    return running, waiting


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "reply",
    [
        Reply(before_headers=NEVER),
        Reply(before_first=NEVER),
        Reply(stop_after=2, hang=True),
        Reply(tokens=100_000, delay=0.01),
        Reply(tokens=100_000, tokens_per_write=1000),
    ],
)
@pytest.mark.gen_test
async def test_cancelling_closes_the_socket_at_any_moment(io_loop, there, reply):
    there.upstream.on("go", reply)
    task = await started(there.upstream, there.collect(there.call("go")))
    await asyncio.sleep(0.05)
    await cancelled(task)
    await there.upstream.wait_closed(1)
    assert there.slots.running == 0


@pytest.mark.gen_test
async def test_closing_the_stream_in_the_middle_closes_the_socket(io_loop, there):
    there.upstream.on("go", Reply(tokens=100_000, delay=0.01))
    async with aclosing(there.models.stream(there.call("go"), PATIENT)) as stream:
        async for _ in stream:
            break
    await there.upstream.wait_closed(1)
    assert there.slots.running == 0


@pytest.mark.gen_test
async def test_closing_fails_those_that_run_and_those_that_wait_for_a_slot(io_loop, there):
    running, waiting = await crowded(there, there.failure_of)
    await there.models.close()
    errors = await asyncio.gather(*running, waiting)
    assert {error.code for error in errors} == {"upstream_unreachable"}
    assert len(there.upstream.requests) == 3


@pytest.mark.gen_test
async def test_cancelling_one_that_waits_for_a_slot_never_reaches_the_upstream(io_loop, there):
    running, waiting = await crowded(there, there.collect)
    await cancelled(waiting)
    assert there.slots.waiting == 0
    for task in running:
        await cancelled(task)
    await there.upstream.wait_closed(3)
    assert "go late" not in [request.prompt for request in there.upstream.requests]


@pytest.mark.gen_test
async def test_cancelling_while_connecting_gives_the_slot_back(io_loop, deaf):
    scene = scene_at(f"http://127.0.0.1:{deaf}/v1")
    task = asyncio.ensure_future(scene.collect(scene.call("x")))
    await asyncio.sleep(0.2)
    assert scene.slots.running == 1
    began = time.monotonic()
    await cancelled(task)
    assert time.monotonic() - began < 0.5
    assert scene.slots.running == 0
    await scene.models.close()


@pytest.mark.gen_test
async def test_cancelling_a_call_that_waits_for_its_retry_ends_it(io_loop, there):
    there.upstream.on("again", Reply(status=503, headers={"Retry-After": "50"}))
    whole = there.models.complete(there.call("again"), PATIENT, retries=3)
    task = await started(there.upstream, whole)
    await until(lambda: there.slots.running == 0)
    await cancelled(task)
    assert len(there.upstream.requests) == 1
