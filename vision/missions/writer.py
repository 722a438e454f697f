"""The log writer of a process: log first, then publish, with nothing in between but one round trip.

The law: whatever arrived from all missions while the last write was in flight goes out in the next
one. An idle process writes at once, but that a node has begun, which waits a moment for its first
text; a busy one rests between two writes, too briefly to be seen, so that they are larger and cost
less. An event is published only after Redis has it. Only one write is in flight, so the order of a
mission's events is the order in which they were put; a write that found Redis away is repeated
until it is back, and since an append is idempotent, an event is neither lost nor doubled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import structlog

from vision.errors import StaleEpoch, StoreUnavailable
from vision.missions.events import (
    Batch,
    Event,
    MissionFinished,
    MissionStatus,
    NodeEnded,
    NodeRestarted,
    NodeStarted,
    Outcome,
    Token,
    encode,
)
from vision.missions.log import Append, MissionLog

_logger = structlog.get_logger(__name__)

# Token text that may wait for Redis, over all missions, before their model streams are held back.
# A minute's output of some thousand streams; the upstreams' sockets then hold back the rest.
MAX_PENDING_CHARS: Final = 4 * 1024 * 1024

# A process is busy after a write of so many missions, and after so many writes in a row that found
# more to write when they came back. What a write costs whatever is in it is then no more than what
# its appends cost; and so many writes are a millisecond, in which a short answer is done.
BUSY: Final = 4

# From the beginning of such a write to the next one. 100 streams of 50 tokens a second take a
# quarter less of the processor than without it, and a token is late by 2.5 ms in the mean, where
# its reader sees 20 ms at best.
REST_SECONDS: Final = 0.005

# That a node has begun waits so long for something to be written with: usually its first token.
# What a crash loses meanwhile is the count of an attempt that has brought nothing.
BEGUN_SECONDS: Final = 0.1

# While Redis is away: soon enough to go on without a visible pause, slow enough not to be a load.
RETRY_SECONDS: Final = 0.25


class _OpenToken(msgspec.Struct):
    """Text of one node that still grows while it waits for its write."""

    first: Token
    texts: list[str]
    finish_reason: str | None

    def close(self) -> Token:
        if len(self.texts) == 1:
            return self.first
        first, text = self.first, "".join(self.texts)
        return Token(first.node_id, first.model, text, self.finish_reason, first.created)


@dataclass(slots=True)
class Writing:
    """The pen of one runner on one mission: its epoch, and what is not in the log yet."""

    mission_id: str
    epoch: int
    seq: int
    # True once the mission's last event is in the log, False once another runner owns the mission.
    ended: asyncio.Future[bool]
    pen: tuple[str, int] = field(init=False)  # which of the pens on one mission
    chars: int = 0
    # Those who wait until what was put before is in the log.
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    _events: list[Event | _OpenToken] = field(default_factory=list)
    _open: dict[str, _OpenToken] = field(default_factory=dict)
    _outcomes: dict[str, Outcome] = field(default_factory=dict)
    _status: MissionStatus | None = None

    def __post_init__(self) -> None:
        self.pen = self.mission_id, self.epoch

    @property
    def waits(self) -> bool:
        """Whether there is something to write."""
        return bool(self._outcomes or self._events)

    def put(self, event: Event | NodeStarted) -> None:
        """Add an event. Text of a node that waits already grows; order within a node is kept."""
        match event:
            case Token():
                self._put_token(event)
            case MissionFinished():
                self._events.append(event)
                self._status = event.status
            case NodeStarted():
                self._outcomes[event.node_id] = event.outcome
            case NodeRestarted() | NodeEnded():
                self._outcomes[event.node_id] = event.outcome
                self._open.pop(event.node_id, None)
                self._events.append(event)

    def _put_token(self, token: Token) -> None:
        self.chars += len(token.text)
        waiting = self._open.get(token.node_id)
        if waiting is None:
            waiting = _OpenToken(token, [], None)
            self._open[token.node_id] = waiting
            self._events.append(waiting)
        waiting.texts.append(token.text)
        waiting.finish_reason = token.finish_reason or waiting.finish_reason

    def take(self) -> Append:
        """Number and encode all that waits."""
        first = self.seq + 1
        encoded = [
            encode(event.close() if isinstance(event, _OpenToken) else event, self.mission_id, seq)
            for seq, event in enumerate(self._events, first)
        ]
        batch = Batch(first, encoded, final=self._status is not None)
        now = time.time_ns() // 1_000_000
        append = Append(self.mission_id, self.epoch, batch, self._outcomes, self._status, now)
        self.seq, self.chars = batch.last, 0
        self._events, self._open, self._outcomes = [], {}, {}
        return append


class _Write(msgspec.Struct, frozen=True):
    """One append on its way, and who waits for it."""

    writing: Writing
    append: Append
    waiters: list[asyncio.Future[None]]

    @classmethod
    def of(cls, writing: Writing) -> _Write:
        waiters, writing.waiters = writing.waiters, []
        return cls(writing, writing.take(), waiters)


class LogWriter:
    """Writes the events of all missions of this process. `run` is owned by the runner."""

    def __init__(self, log: MissionLog, publish: Callable[[str, Batch], None]) -> None:
        self._log = log
        self._publish = publish
        # By mission and epoch: a runner and one who cancels may hold pens on one mission for a
        # while, and each has to learn whether its own still writes.
        self._dirty: dict[tuple[str, int], Writing] = {}
        self._begun: dict[tuple[str, int], Writing] = {}  # whose note may wait for something else
        self._due: asyncio.Handle | None = None  # when they are written at the latest
        self._wake = asyncio.Event()
        self._pending_chars = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.events = 0  # logged since the start
        self.writes = 0  # round trips that took

    def put(self, writing: Writing, event: Event | NodeStarted) -> None:
        """Take an event to be logged and then published. Never waits; see `room`."""
        writing.put(event)
        if isinstance(event, NodeStarted):
            self._put_off(writing)
            return
        self._dirty[writing.pen] = writing
        self._wake.set()
        if isinstance(event, Token):
            self._pending_chars += len(event.text)
            if self._pending_chars > MAX_PENDING_CHARS:
                self._has_room.clear()

    def _put_off(self, writing: Writing) -> None:
        self._begun[writing.pen] = writing
        if self._due is None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_later(BEGUN_SECONDS, self._write_begun)

    def _write_begun(self) -> None:
        """Write what has not been written with anything else meanwhile."""
        begun, self._begun, self._due = self._begun, {}, None
        self._dirty.update((pen, writing) for pen, writing in begun.items() if writing.waits)
        if self._dirty:
            self._wake.set()

    def drop(self, writing: Writing) -> None:
        """Forget what a runner that has lost its mission still wanted to write."""
        self._begun.pop(writing.pen, None)
        if self._dirty.pop(writing.pen, None) is not None:
            self._shrink(writing.chars)
            writing.chars = 0
        for waiter in writing.waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def settled(self, writing: Writing) -> None:
        """Wait until all that was put is in the log, or the mission is another runner's."""
        if writing.ended.done():
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        writing.waiters.append(waiter)
        self._dirty[writing.pen] = writing
        self._wake.set()
        await waiter

    @property
    def full(self) -> bool:
        """Whether more text has to wait; see `room`."""
        return self._pending_chars > MAX_PENDING_CHARS

    async def room(self) -> None:
        """Wait until more text may be put: bounded memory while Redis is slow or away."""
        await self._has_room.wait()

    async def run(self) -> None:
        """Write until cancelled."""
        without_pause = 0  # writes in a row that found more to write when they came back
        while True:
            await self._wake.wait()
            self._wake.clear()
            dirty, self._dirty = list(self._dirty.values()), {}
            self._shrink(sum(writing.chars for writing in dirty))
            begun = time.monotonic()
            await self._write([_Write.of(writing) for writing in dirty])
            without_pause = without_pause + 1 if self._wake.is_set() else 0
            rest = begun + REST_SECONDS - time.monotonic()
            if rest > 0 and max(len(dirty), without_pause) >= BUSY:
                await asyncio.sleep(rest)

    def _shrink(self, chars: int) -> None:
        self._pending_chars -= chars
        if self._pending_chars <= MAX_PENDING_CHARS:
            self._has_room.set()

    async def _write(self, writes: list[_Write]) -> None:
        """Write all, the refused ones again and again until Redis takes them."""
        refusal: StoreUnavailable | None = None
        while writes:
            self.writes += 1
            results = await self._append([write.append for write in writes])
            refused: list[_Write] = []
            for write, result in zip(writes, results, strict=True):
                if isinstance(result, StoreUnavailable):
                    refused.append(write)
                    if refusal is None:
                        refusal = result
                        _logger.error("log_write_waits", error=result.message)
                else:
                    self._settle(write, result)
            writes = refused
            if writes:
                await asyncio.sleep(RETRY_SECONDS)
        if refusal is not None:
            _logger.info("log_write_resumed")

    async def _append(
        self, appends: list[Append]
    ) -> Sequence[StaleEpoch | StoreUnavailable | None]:
        try:
            return await self._log.append(appends)
        except StoreUnavailable as error:
            return [error] * len(appends)

    def _settle(self, write: _Write, stale: StaleEpoch | None) -> None:
        writing, batch = write.writing, write.append.batch
        if stale is None:
            self.events += len(batch.events)
            self._publish(writing.mission_id, batch)
        else:
            self.drop(writing)
        if (stale is not None or batch.final) and not writing.ended.done():
            writing.ended.set_result(stale is None)
        for waiter in write.waiters:
            if not waiter.done():
                waiter.set_result(None)
