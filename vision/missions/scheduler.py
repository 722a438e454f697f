"""The runner: takes missions from the queue and carries out what their state machines decide.

The law: a mission's fate is decided in `mission.py` alone; here is only the shell. Each attempt is
a task that belongs to its `MissionRun`, which stops and awaits all of them before it returns, so a
model call never outlives its mission. A run ends when the mission's last event is in the log, or
when its epoch is stale because another runner owns the mission; then nothing more is written.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Final

import msgspec
import structlog

from vision.errors import ModelError, StoreUnavailable, VisionError
from vision.missions.events import Failure
from vision.missions.graph import build_graph
from vision.missions.log import Claim, MissionLog
from vision.missions.mission import MissionState
from vision.missions.queue import MissionQueue, Ticket
from vision.missions.stimuli import (
    Arrived,
    AttemptFailed,
    AttemptSucceeded,
    Begin,
    Cancel,
    Log,
    StartAttempt,
    Stimulus,
    StopAttempt,
)
from vision.missions.writer import LogWriter, Writing
from vision.models.call import Chunk, node_call
from vision.models.catalog import Catalog
from vision.models.options import with_timeout
from vision.models.upstream import Models

_logger = structlog.get_logger(__name__)

# How long one look into the queue waits: under the client's socket timeout of five seconds.
TAKE_WAIT_MS: Final = 2000

# Between two looks while Redis is away, and between two renewals that failed.
RETRY_SECONDS: Final = 0.5


def now_ms() -> int:
    """Milliseconds since the epoch, in UTC."""
    return time.time_ns() // 1_000_000


class MissionRun:
    """One mission in the hands of this runner, under one epoch."""

    def __init__(self, claim: Claim, catalog: Catalog, models: Models, writer: LogWriter) -> None:
        self._catalog = catalog
        self._models = models
        self._writer = writer
        self.state = MissionState(build_graph(msgspec.json.decode(claim.spec)), claim.outcomes)
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.writing = Writing(claim.mission_id, claim.epoch, claim.seq, ended)
        self._attempts: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> bool:
        """Run to the end. True when the mission has ended, False when it is another runner's."""
        try:
            self.feed(Begin(now_ms()))
            return await self.writing.ended
        finally:
            self._writer.drop(self.writing)
            attempts = list(self._attempts.values())
            for attempt in attempts:
                attempt.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)

    def feed(self, stimulus: Stimulus) -> None:
        """Tell the state machine a fact and carry out what it decides."""
        for instruction in self.state.handle(stimulus):
            match instruction:
                case Log():
                    self._writer.put(self.writing, instruction.event)
                case StartAttempt():
                    attempt = asyncio.create_task(self._attempt(instruction))
                    self._attempts[instruction.node.id] = attempt
                case StopAttempt():
                    self._attempts[instruction.node_id].cancel()

    async def cancel(self, node_id: str | None) -> None:
        """End the mission or a node of it; returns when that is in the log."""
        self.feed(Cancel(node_id, now_ms()))
        await self._writer.settled(self.writing)

    async def _attempt(self, start: StartAttempt) -> None:
        node_id, attempt = start.node.id, start.attempt
        try:
            await asyncio.sleep(start.delay)
            await self._stream(start)
        except VisionError as error:
            self.feed(_failed(node_id, attempt, error))
        except Exception:
            # A bug of ours costs this node, not the mission and not the process.
            _logger.exception("attempt_crashed", mission=self.writing.mission_id, node=node_id)
            failure = Failure("internal_error", "the server failed; its log has the details")
            self.feed(AttemptFailed(node_id, attempt, failure, False, None, 0.0, now_ms()))
        else:
            self.feed(AttemptSucceeded(node_id, attempt, now_ms()))

    async def _stream(self, start: StartAttempt) -> None:
        node = start.node
        route = self._catalog.route(node.model)
        call = node_call(route, start.prompt, node.params)
        timeouts = with_timeout(self._catalog.upstream(route).timeouts, node.timeout)
        async with aclosing(self._models.stream(call, timeouts)) as stream:
            async for chunks in stream:
                self.feed(_arrived(node.id, start.attempt, chunks))
                await self._writer.room()


class Runner:
    """Runs missions in this process, `room` at once. `run` is owned by the server's main task."""

    def __init__(
        self,
        log: MissionLog,
        queue: MissionQueue,
        start_run: Callable[[Claim], MissionRun],
        *,
        room: int,
        claim_timeout: float,
    ) -> None:
        self._log = log
        self._queue = queue
        self._start_run = start_run
        self._room = room
        self._claim_timeout = claim_timeout
        self._tickets: dict[Ticket, asyncio.Task[None]] = {}
        self._freed = asyncio.Event()
        self.runs: dict[str, MissionRun] = {}
        self.taking = False  # whether the last look into the queue went well

    async def run(self) -> None:
        """Take and run missions until cancelled; then stop them, to be taken up by another."""
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._persist(self._take_left_over))
                loops.create_task(self._forever(self._take))
                loops.create_task(self._forever(self._take_over))
                loops.create_task(self._forever(self._renew))
        finally:
            tasks = list(self._tickets.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._persist(step)

    async def _persist(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do one step; while Redis is away, try it again."""
        while True:
            try:
                return await step()
            except StoreUnavailable as error:
                self.taking = False
                _logger.warning("queue_unavailable", step=step.__name__, error=error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def _take_left_over(self) -> None:
        await self._queue.prepare()
        for ticket in await self._queue.left_over(self._room):
            self._serve(ticket)
        self.taking = True

    async def _take(self) -> None:
        await self._wait_for_room()
        tickets = await self._queue.take(self._room - len(self._tickets), TAKE_WAIT_MS)
        self.taking = True
        for ticket in tickets:
            self._serve(ticket)

    async def _take_over(self) -> None:
        await asyncio.sleep(self._claim_timeout / 2)
        free = self._room - len(self._tickets)
        if free > 0:
            idle_ms = int(self._claim_timeout * 1000)
            for ticket in await self._queue.take_over(free, idle_ms):
                self._serve(ticket)

    async def _renew(self) -> None:
        # Three renewals fit into a claim, so that one may be lost.
        await asyncio.sleep(self._claim_timeout / 3)
        if self._tickets:
            await self._queue.renew(list(self._tickets))

    async def _wait_for_room(self) -> None:
        while len(self._tickets) >= self._room:
            self._freed.clear()
            await self._freed.wait()

    def _serve(self, ticket: Ticket) -> None:
        if ticket in self._tickets:
            return
        task = asyncio.create_task(self._run_ticket(ticket), name=f"mission {ticket.mission_id}")
        self._tickets[ticket] = task
        task.add_done_callback(lambda done: self._release(ticket, done))

    def _release(self, ticket: Ticket, task: asyncio.Task[None]) -> None:
        del self._tickets[ticket]
        self._freed.set()
        if not task.cancelled() and (error := task.exception()):
            # Its claim runs out, and the mission is taken up again.
            _logger.error("mission_crashed", mission=ticket.mission_id, exc_info=error)

    async def _run_ticket(self, ticket: Ticket) -> None:
        await self._persist(lambda: self._run_mission(ticket))

    async def _run_mission(self, ticket: Ticket) -> None:
        """Run the mission of a ticket until it has ended or the claim is another's."""
        while (claim := await self._log.acquire(ticket.mission_id)) is not None:
            run = self._start_run(claim)
            self.runs[ticket.mission_id] = run
            try:
                ended = await run.run()
            finally:
                del self.runs[ticket.mission_id]
            if ended:
                break
            if not await self._queue.holds(ticket):
                return
        await self._queue.done(ticket)


def _failed(node_id: str, attempt: int, error: VisionError) -> AttemptFailed:
    model_error = error if isinstance(error, ModelError) else None
    return AttemptFailed(
        node_id,
        attempt,
        Failure(error.code, error.message),
        retryable=model_error is not None and model_error.retryable,
        retry_after=model_error.retry_after if model_error else None,
        jitter=random.random(),  # noqa: S311 -- it spreads retries, it guards nothing
        now=now_ms(),
    )


def _arrived(node_id: str, attempt: int, chunks: list[Chunk]) -> Arrived:
    """All that one read brought, as one fact."""
    reason, usage = None, None
    for chunk in chunks:
        reason = chunk.finish_reason or reason
        usage = chunk.usage or usage
    counts = asdict(usage) if usage is not None else None
    text = "".join(chunk.text for chunk in chunks)
    return Arrived(node_id, attempt, text, reason, counts, now_ms())
