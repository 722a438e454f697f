"""Case 8: what a gateway adds to one short request, when nothing else happens.

    python -m benchmarks.overhead [--full]     # among all cases it is a part of `relay`

The law: one connection to the upstream and one to what is measured, both kept; some requests go to
the one, then as many to the other, and so on, so that whatever else happens on the machine meets
both. What is added is the difference of the two medians, and of the two 99th percentiles.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from benchmarks.alone import main
from benchmarks.installed import FAILURES, Unusable, reason
from benchmarks.load import Spread, Target, spread
from benchmarks.peers import PEERS, Start, Subject, direct, vision
from benchmarks.report import Row, Table
from benchmarks.rig import Rig, Size, rig

# Requests in a row to one of the two: some milliseconds, far below any keep-alive.
BLOCK = 20

BLOCKS = {Size.QUICK: 8, Size.FULL: 150}

# The first request of LiteLLM takes a second, since it imports more; pools fill in the first ten.
WARM_UP = 40

# All of a block; a peer that refuses a request may leave it hanging.
BLOCK_SECONDS = 30.0

CLOSED = "it closed the connection"
TITLE = (
    "one short request after another on one connection, not streamed "
    "(published, same method: Bifrost 0.5 ms, Portkey 2.4 ms, LiteLLM 4.3 ms)"
)


class _Connection(asyncio.Protocol):
    """Sends the same request again and again; an answer is whole when its end has come.

    What a server sends after that (the end of a chunked body) stands before the next answer, where
    it does no harm.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._text = b""
        self._over: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, target: Target) -> _Connection:
        loop = asyncio.get_running_loop()
        _, opened = await loop.create_connection(lambda: cls(target), "127.0.0.1", target.port)
        return opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._text += data
        if self._target.end in self._text and self._over is not None and not self._over.done():
            self._over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(Unusable(CLOSED))

    def close(self) -> None:
        self._transport.close()

    async def ask(self, count: int) -> list[float]:
        """So many requests; the seconds that each answer took."""
        times = []
        for _ in range(count):
            if self._transport.is_closing():
                raise Unusable(CLOSED)
            self._text, self._over = b"", asyncio.get_running_loop().create_future()
            begin = time.perf_counter()
            self._transport.write(self._target.request)
            await self._over
            times.append(time.perf_counter() - begin)
        return times


@dataclass(slots=True)
class Found:
    """Seconds that answers took, and processor time."""

    direct: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)
    cpu: float = 0.0
    children_cpu: float = 0.0

    def row(self, subject: str) -> Row:
        through, plain = spread(self.through), spread(self.direct)
        count = len(self.through)
        return Row(
            subject,
            {
                "added p50 ms": through.p50 - plain.p50,
                "added p99 ms": through.p99 - plain.p99,
                **_times("", through),
                **_times("direct ", plain),
                "CPU us/request": self.cpu / count * 1e6,
                "children us/request": self.children_cpu / count * 1e6,
            },
        )


def _times(of: str, times: Spread) -> dict[str, float]:
    return {f"{of}p50 ms": times.p50, f"{of}p99 ms": times.p99}


async def run(size: Size) -> Table:
    """All one after another; the upstream is not compared with itself."""
    with rig() as base:
        rows = [await _peer(base, name, start, size) for name, start in PEERS.items()]
        rows.append(await _measure(base, vision, size))
    return Table("overhead", TITLE, rows)


async def _peer(base: Rig, name: str, start: Start, size: Size) -> Row:
    """With the figures or with the reason why there are none."""
    try:
        return await _measure(base, start, size)
    except FAILURES as error:
        return Row(name, note=reason(error))


async def _measure(base: Rig, start: Start, size: Size) -> Row:
    with direct(base) as upstream, start(base) as subject:
        return await measure(upstream, subject, size)


async def measure(upstream: Subject, subject: Subject, size: Size) -> Row:
    """What a subject that runs adds. Raises `Unusable`."""
    plain = await _Connection.open(upstream.whole)
    through = await _Connection.open(subject.whole)
    try:
        return await _blocks(plain, through, subject, BLOCKS[size])
    except TimeoutError as error:
        raise Unusable(f"no answers within {BLOCK_SECONDS:.0f} s") from error
    finally:
        plain.close()
        through.close()


async def _blocks(plain: _Connection, through: _Connection, subject: Subject, count: int) -> Row:
    found = Found()
    for connection in (through, plain):
        async with asyncio.timeout(BLOCK_SECONDS):
            await connection.ask(WARM_UP)
    before = subject.cpu()
    for _ in range(count):
        async with asyncio.timeout(BLOCK_SECONDS):
            found.direct += await plain.ask(BLOCK)
            found.through += await through.ask(BLOCK)
    after = subject.cpu()
    found.cpu, found.children_cpu = after[0] - before[0], after[1] - before[1]
    return found.row(subject.name)


if __name__ == "__main__":
    main(run)
