"""Cases 1, 2 and 8: tokens through a relay, at the pace of a model and as fast as they come, and
what it adds to a short request.

    python -m benchmarks.relay [--full]

The law: every stream is read to its end and every token is counted; what was lost stands beside
the figures. A load is run once at a tenth of its tokens before it is measured, and then until the
kernel's clock, which counts processor time in hundredths of a second, is fine enough for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks import overhead
from benchmarks.alone import main
from benchmarks.installed import FAILURES, Unusable, reason
from benchmarks.lateness import Tokens, columns
from benchmarks.load import Stream, streams
from benchmarks.peers import PEERS, Start, Subject, direct, vision
from benchmarks.report import Row, Table
from benchmarks.rig import Rig, Size, rig

# A slow peer takes seconds for its first requests; one that refuses them may leave them hanging.
WARM_UP_SECONDS = 30.0

# Of each stream of the upstream itself, before all else; a tenth of them is read.
WARM_UPSTREAM_TOKENS = 5_000

# 0.2 s are twenty ticks of the clock: five in a hundred. 2 s are one in two hundred.
ENOUGH_CPU = {Size.QUICK: 0.2, Size.FULL: 2.0}

# The upstream and nginx use so little that they would take minutes to use that.
ENOUGH_SECONDS = {Size.QUICK: 1.0, Size.FULL: 20.0}


@dataclass(frozen=True, slots=True)
class Load:
    """So many streams at once, of so many tokens, so many milliseconds apart."""

    case: str
    streams: int
    tokens: int
    gap: int

    def __str__(self) -> str:
        pace = f"{self.gap} ms apart" if self.gap else "as fast as they come"
        return f"{self.streams} streams at once x {self.tokens} tokens, {pace}"


LOADS = {
    Size.QUICK: (Load("relay-paced", 100, 50, 20), Load("relay-burst", 50, 80, 0)),
    Size.FULL: (Load("relay-paced", 100, 100, 20), Load("relay-burst", 50, 200, 0)),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What the runs of one load brought, and used."""

    subject: str
    load: Load
    walls: Sequence[float]  # seconds, of each run
    streams: Sequence[Stream]  # of all runs
    cpu: float
    children_cpu: float

    def row(self, reference: Found) -> Row:
        """Its figures beside those of the upstream itself."""
        tokens = sum(each.tokens for each in self.streams)
        figures = {
            "CPU us/token": self.cpu / tokens * 1e6,
            "children us/token": self.children_cpu / tokens * 1e6,
            "wall s": sum(self.walls) / len(self.walls),
            **columns(Tokens.of(self.streams), Tokens.of(reference.streams)),
        }
        return Row(self.subject, figures, self._lost(tokens))

    def _lost(self, tokens: int) -> str:
        lost = len(self.streams) * self.load.tokens - tokens
        broken = sum(not each.complete for each in self.streams)
        if not lost and not broken:
            return ""
        return f"{lost} tokens lost, {broken} of {len(self.streams)} streams not complete"


@dataclass(frozen=True, slots=True)
class Reference:
    """The upstream itself, and what its streams were like."""

    upstream: Subject
    loads: Sequence[Found]


async def run(size: Size) -> list[Table]:
    """Both loads and the short requests; each subject is started once for all of them."""
    loads = LOADS[size]
    with rig() as base, direct(base) as upstream:
        for load in loads:  # Node compiles what it runs often; the first measured would be slow
            await _warm_up(upstream, replace(load, tokens=WARM_UPSTREAM_TOKENS, gap=0))
        reference = Reference(upstream, [await _load(upstream, load, size) for load in loads])
        rows = [await _peer(base, name, start, reference, size) for name, start in PEERS.items()]
        rows.append(await _measure(base, vision, reference, size))
    tables = []
    for load, itself, found in zip(loads, reference.loads, zip(*rows, strict=True), strict=False):
        tables.append(Table(load.case, str(load), [itself.row(itself), *found]))
    return [*tables, Table("overhead", overhead.TITLE, [row[-1] for row in rows])]


async def _peer(base: Rig, name: str, start: Start, reference: Reference, size: Size) -> list[Row]:
    """A row for each table, with the figures or with the reason why there are none."""
    try:
        return await _measure(base, start, reference, size)
    except FAILURES as error:
        return [Row(name, note=reason(error)) for _ in range(len(reference.loads) + 1)]


async def _measure(base: Rig, start: Start, reference: Reference, size: Size) -> list[Row]:
    with start(base) as subject:
        found = [await _load(subject, load, size) for load in LOADS[size]]
        rows = [each.row(other) for each, other in zip(found, reference.loads, strict=True)]
        return [*rows, await overhead.measure(reference.upstream, subject, size)]


async def _load(subject: Subject, load: Load, size: Size) -> Found:
    await _warm_up(subject, load)
    target = subject.streamed(load.tokens, load.gap)
    walls: list[float] = []
    found: list[Stream] = []
    before, used = subject.cpu(), (0.0, 0.0)
    while used[0] < ENOUGH_CPU[size] and sum(walls) < ENOUGH_SECONDS[size]:
        begin = time.perf_counter()
        found += await streams(target, load.streams)
        walls.append(time.perf_counter() - begin)
        now = subject.cpu()
        used = now[0] - before[0], now[1] - before[1]
    if not any(each.tokens for each in found):
        raise Unusable("no token came")
    return Found(subject.name, load, walls, found, *used)


async def _warm_up(subject: Subject, load: Load) -> None:
    target = subject.streamed(load.tokens // 10, load.gap)
    try:
        async with asyncio.timeout(WARM_UP_SECONDS):
            found = await streams(target, load.streams)
    except TimeoutError as error:
        raise Unusable(f"no end of the streams within {WARM_UP_SECONDS:.0f} s") from error
    if not all(each.complete for each in found):
        raise Unusable("streams ended before their end")


if __name__ == "__main__":
    main(run)
