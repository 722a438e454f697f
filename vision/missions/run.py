"""One mission in the hands of this process: what its state machine decides, carried out.

The law: a mission's fate is decided in `mission.py` alone; here is only the shell. Each attempt is
a task that belongs to its `MissionRun`, which stops and awaits all of them before it returns, so a
model call never outlives its mission. A run ends when the mission's last event is in the log, or
when its epoch is stale because another runner owns the mission; then nothing more is written.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping
from itertools import islice
from typing import Final

import msgspec
import structlog

from vision.errors import ModelError, VisionError
from vision.missions.events import Failure, Outcome
from vision.missions.graph import build_graph
from vision.missions.log import MAX_CLAIMS, Claim, decode_spec
from vision.missions.mission import MissionState
from vision.missions.stimuli import (
    Arrived,
    AttemptFailed,
    AttemptSucceeded,
    Begin,
    Cancel,
    GiveUp,
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

# Attempts that begin in one turn of the loop: some 30 us each.
SLICE: Final = 64


def now_ms() -> int:
    """Milliseconds since the epoch, in UTC."""
    return time.time_ns() // 1_000_000


class MissionRun:
    """One mission in the hands of this runner, under one epoch."""

    def __init__(
        self,
        claim: Claim,
        base: Mapping[str, Outcome],
        *,
        catalog: Catalog,
        models: Models,
        writer: LogWriter,
    ) -> None:
        self._catalog = catalog
        self._models = models
        self._writer = writer
        graph = build_graph(decode_spec(claim.spec).prompt_list)
        self.state = MissionState(graph, claim.outcomes, base)
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.writing = Writing(claim.mission_id, claim.epoch, claim.seq, ended)
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, StartAttempt] = {}  # to begin, in order
        self._beginning: asyncio.Handle | None = None
        self._opening: Stimulus = Begin(now_ms())
        if claim.claims > MAX_CLAIMS:
            self._opening = GiveUp(_lost_runners(claim.claims - 1), now_ms())

    async def run(self) -> bool:
        """Run to the end. True when the mission has ended, False when it is another runner's."""
        try:
            self.feed(self._opening)
            return await self.writing.ended
        finally:
            self._writer.drop(self.writing)
            await self._stop_attempts()

    def feed(self, stimulus: Stimulus) -> None:
        """Tell the state machine a fact and carry out what it decides."""
        for instruction in self.state.handle(stimulus):
            match instruction:
                case Log():
                    self._writer.put(self.writing, instruction.event)
                case StartAttempt():
                    self._waiting[instruction.node.id] = instruction
                case StopAttempt():
                    self._waiting.pop(instruction.node_id, None)
                    if attempt := self._attempts.get(instruction.node_id):
                        attempt.cancel()
        if self._waiting and self._beginning is None:
            self._begin_some()

    def _begin_some(self) -> None:
        """Begin attempts, in slices: thousands in one turn would hold up everybody else."""
        self._beginning = None
        for node_id in list(islice(self._waiting, SLICE)):
            attempt = self._guarded(self._waiting.pop(node_id))
            self._attempts[node_id] = asyncio.create_task(attempt)
        if self._waiting:
            self._beginning = asyncio.get_running_loop().call_soon(self._begin_some)

    async def cancel(self, node_id: str | None) -> None:
        """End the mission or a node of it; returns when that is in the log."""
        self.feed(Cancel(node_id, now_ms()))
        await self._writer.settled(self.writing)

    async def hand_over(self) -> None:
        """Stop all model calls and have what they brought written: another runner goes on."""
        await self._stop_attempts()
        await self._writer.settled(self.writing)

    async def _stop_attempts(self) -> None:
        if self._beginning is not None:
            self._beginning.cancel()
        self._waiting.clear()
        attempts = list(self._attempts.values())
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)

    async def _guarded(self, start: StartAttempt) -> None:
        """A bug in what follows from an attempt would leave the mission hanging: end the run."""
        task = self._attempts[start.node.id]
        try:
            self.feed(await self._attempt(start))
        except Exception as error:
            if not self.writing.ended.done():
                self.writing.ended.set_exception(error)
        finally:
            if self._attempts.get(start.node.id) is task:  # not the next attempt's
                del self._attempts[start.node.id]

    async def _attempt(self, start: StartAttempt) -> AttemptSucceeded | AttemptFailed:
        """Call the model and tell what it brings; how that ended."""
        node_id, attempt = start.node.id, start.attempt
        try:
            if start.delay:
                await asyncio.sleep(start.delay)
            stream = self._stream(start)
            try:
                async for chunks in stream:
                    self.feed(_arrived(node_id, attempt, chunks))
                    if self._writer.full:
                        await self._writer.room()
            finally:
                await stream.aclose()
        except VisionError as error:
            return _failed(node_id, attempt, error)
        except Exception:
            # A bug of ours costs this node, not the mission and not the process.
            _logger.exception("attempt_crashed", mission=self.writing.mission_id, node=node_id)
            failure = Failure("internal_error", "the server failed; its log has the details")
            return AttemptFailed(node_id, attempt, failure, False, None, 0.0, now_ms())
        return AttemptSucceeded(node_id, attempt, now_ms())

    def _stream(self, start: StartAttempt) -> AsyncGenerator[list[Chunk], None]:
        node = start.node
        route = self._catalog.route(node.model)
        call = node_call(route, start.prompt, node.params)
        timeouts = with_timeout(self._catalog.upstream(route).timeouts, node.timeout)
        return self._models.stream(call, timeouts)


def _lost_runners(count: int) -> Failure:
    why = f"{count} runners in a row were lost before any node of the mission ended"
    return Failure("runner_lost", why)


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
    text, reason, usage = "", None, None
    for chunk in chunks:
        text += chunk.text
        reason = chunk.finish_reason or reason
        usage = chunk.usage or usage
    counts = msgspec.structs.asdict(usage) if usage is not None else None
    return Arrived(node_id, attempt, text, reason, counts, now_ms())
