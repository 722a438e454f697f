"""Case 7: how soon the upstream is let go of.

    python -m benchmarks.cancel [--full]

The law: time runs from the moment the wish is sent until the upstream has seen its own socket
closed, on the one clock that all processes of the machine share; and what the upstream wrote in
between is counted there. Nothing is worked out from what a client saw.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from benchmarks.alone import main
from benchmarks.asking import KEY, ask_json
from benchmarks.costs import Cost, Meter
from benchmarks.lateness import Tokens, columns
from benchmarks.load import TOKEN, Target, http_request, post, spread
from benchmarks.report import Row, Table
from benchmarks.rig import Rig, Size, one_node, rig

GAP = 20  # milliseconds between two tokens
MANY = 100_000  # tokens: half an hour, so that none ends by itself

# So many tokens have come through when the wish is sent: everything on the way is set up.
BEFORE = 3

REPETITIONS = {Size.QUICK: 20, Size.FULL: 200}

# Wishes come at any moment between two tokens; sent at the sight of one, they would all come at the
# same. The seed makes two runs alike.
LUCK = random.Random(1)

# Far beyond what cancelling may take; what is still open then was not cancelled.
CLOSED_SECONDS = 10.0
LOOK_SECONDS = 0.005  # between two looks; when it was closed is told by the upstream, exactly


class Open(NamedTuple):
    """A stream that flows."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    mission_id: str  # empty when it is the upstream's own
    moments: Sequence[float]  # when it was asked for, and when each of its first tokens was here


class Seen(NamedTuple):
    """What the upstream tells."""

    tokens: int
    closed: int  # streams that their readers closed
    closed_at: int  # the last of them, CLOCK_MONOTONIC in nanoseconds


@dataclass(frozen=True, slots=True)
class Cut:
    """One stream that was ended."""

    seconds: float
    tokens: int  # written after the wish was sent
    moments: Sequence[float]  # of its beginning: see `Open`


@dataclass(frozen=True, slots=True)
class Found:
    """The streams of one subject, all ended, and what they took."""

    cost: Cost
    cuts: Sequence[Cut]

    @property
    def tokens(self) -> Tokens:
        """How the streams began."""
        firsts = [cut.moments[1] - cut.moments[0] for cut in self.cuts]
        gaps = [b - a for cut in self.cuts for a, b in pairwise(cut.moments[1:])]
        return Tokens(firsts, gaps)

    def row(self, direct: Tokens | None) -> Row:
        """Its figures, beside how streams of the upstream itself began."""
        cost, until = self.cost, spread([cut.seconds for cut in self.cuts])
        figures = {
            "p50 ms": until.p50,
            "p99 ms": until.p99,
            "tokens after, mean": fmean(cut.tokens for cut in self.cuts),
            "tokens after, most": max(cut.tokens for cut in self.cuts),
            "CPU us/stream": cost.each,
            "children us/stream": cost.children / cost.units * 1e6,
            "wall s": cost.wall,
            **columns(self.tokens, direct),
        }
        return Row(cost.subject, figures)


# Ends a stream; returns when the wish is on its way, with the moment at which it was sent.
Way = Callable[[Open], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Subject:
    """Streams that one process serves, and how they are ended."""

    name: str
    target: Target
    way: Way
    pid: int


async def run(size: Size) -> Table:
    """Ours, both ways, and the upstream's own client that leaves: nothing can be faster."""
    count = REPETITIONS[size]
    with rig() as made, made.server() as server:

        async def cancel(stream: Open) -> int:
            return await _cancel(server.port, stream.mission_id)

        itself, target = made.direct(MANY, GAP), _watched(server.port)
        subjects = [
            Subject("upstream direct: client leaves", itself, leave, made.upstream.pid),
            Subject("ours: client leaves", target, leave, server.pid),
            Subject("ours: cancel", target, cancel, server.pid),
        ]
        found = [await _measure(each, made, count) for each in subjects]
    direct = found[0].tokens if isinstance(found[0], Found) else None
    rows = [each.row(direct) if isinstance(each, Found) else each for each in found]
    title = f"until the upstream's socket is closed; {count} streams, a token each {GAP} ms"
    return Table("cancel", title, rows)


def _watched(port: int) -> Target:
    """A mission that ends with its client, if that leaves."""
    body = one_node(MANY, GAP) | {"onDisconnect": "cancel"}
    return post(port, "/api/completion/st/generate", body, b"", **KEY)


async def leave(stream: Open) -> int:
    """The client closes its socket."""
    sent = time.monotonic_ns()
    stream.writer.close()
    return sent


async def _cancel(port: int, mission_id: str) -> int:
    """POST cancel, on a connection that is there already."""
    body = json.dumps({"missionId": mission_id}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = time.monotonic_ns()
    writer.write(http_request("POST", "/api/completion/cancel", body, KEY))
    head = await reader.readuntil(b"\r\n")
    writer.close()
    if b" 200 " not in head:
        raise RuntimeError(head.decode())
    return sent


async def _measure(subject: Subject, made: Rig, count: int) -> Found | Row:
    """A row where one was not let go of: it has no figures."""
    try:
        await _cut(made, subject)  # the first answer of a process is slow
        meter = Meter(subject.pid)
        cuts = [await _cut(made, subject) for _ in range(count)]
    except TimeoutError:
        why = f"the upstream's socket was still open after {CLOSED_SECONDS} s"
        return Row(subject.name, note=why)
    return Found(meter.cost(subject.name, count), cuts)


async def _cut(made: Rig, subject: Subject) -> Cut:
    stream = await _open(subject.target)
    try:
        await asyncio.sleep(LUCK.uniform(0, GAP / 1e3))
        before = await _seen(made)
        sent = await subject.way(stream)
        after = await _wait_closed(made, before)
    finally:
        stream.writer.close()
        with suppress(ConnectionError):
            await stream.writer.wait_closed()
    return Cut((after.closed_at - sent) / 1e9, after.tokens - before.tokens, stream.moments)


async def _open(target: Target) -> Open:
    """A stream whose first tokens are here."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    moments = [time.perf_counter()]
    writer.write(target.request)
    async with asyncio.timeout(CLOSED_SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        for _ in range(BEFORE):
            await reader.readuntil(TOKEN)
            moments.append(time.perf_counter())
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
    return Open(reader, writer, headers.get("X-Mission-Id", ""), moments)


async def _seen(made: Rig) -> Seen:
    found = await ask_json(made.upstream.port, "/seen")
    return Seen(found["tokens"], found["closed"], int(found["closedAt"]))


async def _wait_closed(made: Rig, before: Seen) -> Seen:
    async with asyncio.timeout(CLOSED_SECONDS):
        while True:
            now = await _seen(made)
            if now.closed > before.closed:
                return now
            await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main(run)
