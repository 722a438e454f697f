"""Case 3: one mission, many WebSockets that watch it.

    python -m benchmarks.fanout [--full]

The law: a frame is an event at a subscriber, and every one of them must arrive, or the row says how
many did not. All subscribe before the first token flows, since a node that takes its time comes
before the one that streams; subscribing is not measured. The peers send the events of our mission,
byte for byte and at the same pace. Ours has fewer writes than events: the ends of a node and of the
mission go out with what came before them, where a peer writes each event by itself.

The first token is counted from the moment at which the first subscriber has the end of the node
before, which is when the upstream is asked for it; a reader of the upstream itself asks by itself.
The peers ask nobody, so they have none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.alone import main
from benchmarks.asking import ask, ask_json
from benchmarks.bare_tornado import bare
from benchmarks.lateness import Tokens, columns
from benchmarks.load import question, spread, streams
from benchmarks.processes import exact_cpu, exact_cpus
from benchmarks.report import Row, Table
from benchmarks.rig import MODEL, Rig, Size, rig
from benchmarks.sockets import Subscriber, message, raise_descriptor_limit, subscribers
from tests.processes import ServerProcess

COUNT = 500

# Milliseconds between two tokens: 12,500 frames a second, for which each subject and the clients
# have a core that is fast enough. On a full one tokens share events, and that is another case.
GAP = 40

# How many tokens give steady figures: the kernel counts processor time in ticks of 10 ms.
TOKENS = {Size.QUICK: 25, Size.FULL: 400}

# Milliseconds until the streaming node begins: all have subscribed by then, on a busy machine too.
GATE = 2_000

# All is paced and over in seconds; a frame that is missing after that does not come.
RUN_SECONDS = 60.0

WAYS = ("write_message", "encoded_once")

# Who reads the upstream itself: one would have a single first token, which is no median.
READERS = 10

# Of each, before they are counted: the first answers of a process are slow.
WARM_UP_TOKENS = 2

# Of our mission's events: the token and the end of the node before, the ends of node and mission.
BEFORE, AFTER = 2, 2

Sockets = Sequence[Subscriber]


@dataclass(frozen=True, slots=True)
class Watched:
    """A process whose subscribers are counted."""

    count: int  # of them
    pid: int
    port: int
    path: str
    start: Callable[[Sockets], Awaitable[None]]  # until all watch what is about to flow


@dataclass(frozen=True, slots=True)
class Found:
    """What came, and what it took."""

    arrivals: Sequence[Sequence[float]]  # of each subscriber
    early: int  # frames before all had subscribed
    server: float  # seconds of processor time
    children: float

    @property
    def frames(self) -> int:
        return sum(map(len, self.arrivals))

    @property
    def wall(self) -> float:
        """Seconds from the very first arrival to the very last."""
        return max(map(max, self.arrivals)) - min(map(min, self.arrivals))

    def faults(self, events: int) -> str:
        """What should not be. `events` is how many each subscriber should have got."""
        missing = len(self.arrivals) * events - self.frames
        notes = [
            f"{missing} frames are missing" if missing else "",
            f"{self.early} frames came before all had subscribed" if self.early else "",
        ]
        return "; ".join(filter(None, notes))

    def row(self, subject: str, events: int, tokens: Mapping[str, float]) -> Row:
        """Its figures, and when tokens came, which `lateness` tells."""
        if not self.frames:
            return Row(subject, note="no frame came")
        # A subscriber that missed one has others at its places.
        spans = [max(moments) - min(moments) for moments in zip(*self.arrivals, strict=False)]
        to_all = spread(spans)
        figures = {
            "frames": self.frames,
            "CPU us/frame": self.server / self.frames * 1e6,
            "children us/frame": self.children / self.frames * 1e6,
            "wall s": self.wall,
            "to all p50 ms": to_all.p50,
            "to all p99 ms": to_all.p99,
            **tokens,
        }
        return Row(subject, figures, self.faults(events))

    def tokens(self) -> Tokens:
        """Those of the node that streams."""
        begin = min(moments[0] for moments in self.arrivals)
        firsts = [moments[BEFORE] - begin for moments in self.arrivals]
        return Tokens(firsts, self.gaps())

    def gaps(self) -> list[float]:
        """Between two of its tokens that did not come together."""
        flows = [moments[BEFORE:-AFTER] for moments in self.arrivals]
        return [b - a for flow in flows for a, b in pairwise(flow) if b > a]


async def run(size: Size) -> Table:
    """Ours first, since the peers replay its events."""
    raise_descriptor_limit()
    tokens = TOKENS[size]
    with rig() as made:
        direct, itself = await upstream(made, tokens)
        with made.server() as server:
            found, events = await ours(server, COUNT, tokens)
        late = columns(found.tokens(), direct)
        rows = [itself, found.row("ours, logged first", len(events), late)]
        for way in WAYS:
            peer = await _peer(made, way, events)
            late = columns(Tokens([], peer.gaps()), direct)
            rows.append(peer.row(f"bare Tornado, {way}", len(events), late))
    title = f"{COUNT} WebSockets watch one mission of {tokens} tokens, {GAP} ms apart"
    return Table("fan-out", title, rows)


async def upstream(made: Rig, tokens: int) -> tuple[Tokens, Row]:
    """The upstream itself, read by some."""
    await streams(made.direct(WARM_UP_TOKENS, GAP), READERS)
    before = exact_cpu(made.upstream.pid)
    found = await streams(made.direct(tokens, GAP), READERS)
    used, itself = exact_cpu(made.upstream.pid) - before, Tokens.of(found)
    frames = sum(each.tokens for each in found)
    figures = {"frames": frames, "CPU us/frame": used / frames * 1e6, **columns(itself)}
    return itself, Row(f"upstream, direct, {READERS} readers", figures)


async def ours(server: ServerProcess, count: int, tokens: int) -> tuple[Found, list[bytes]]:
    """What it took with so many subscribers, and the events that were sent."""
    mission_id = ""

    async def start(sockets: Sockets) -> None:
        nonlocal mission_id
        answer = await ask_json(server.port, "/api/completion/generate", _mission(tokens))
        mission_id = answer["data"]["missionId"]
        await _subscribe(sockets, {"type": "subscribe", "missionId": mission_id, "after": 0})

    path = "/api/completion/ws"
    found = await _measure(Watched(count, server.pid, server.port, path, start))
    log = await ask(server.port, f"/api/completion/st/mission?missionId={mission_id}")
    return found, log.splitlines()


async def _peer(made: Rig, way: str, events: Sequence[bytes]) -> Found:
    with bare(made.folder) as peer:

        async def start(sockets: Sockets) -> None:
            await _subscribe(sockets, {"type": "subscribe"})
            await ask(peer.port, f"/replay?gap={GAP}", b"\n".join(events))

        return await _measure(Watched(COUNT, peer.pid, peer.port, f"/{way}", start))


def _mission(tokens: int) -> dict[str, object]:
    """A node that only takes its time, then the one that streams."""
    gate = {"id": "gate", "mid": MODEL, "prompt": question(1, GATE)}
    told = {"id": "told", "mid": MODEL, "prompt": question(tokens, GAP)}
    return {"promptList": [gate, told | {"dependenceIdList": ["gate"]}]}


async def _subscribe(sockets: Sockets, document: dict[str, object]) -> None:
    frame = message(document)
    async with asyncio.timeout(RUN_SECONDS):
        await asyncio.gather(*(socket.subscribe(frame) for socket in sockets))


async def _measure(watched: Watched) -> Found:
    sockets = await subscribers(watched.port, watched.path, watched.count)
    await watched.start(sockets)
    early = sum(len(socket.arrivals) for socket in sockets)
    before = exact_cpus(watched.pid)
    with suppress(TimeoutError):  # the row says what is missing
        async with asyncio.timeout(RUN_SECONDS):
            await asyncio.gather(*(socket.over() for socket in sockets), return_exceptions=True)
    after = exact_cpus(watched.pid)
    for socket in sockets:
        socket.close()
    own, children = (then - now for then, now in zip(after, before, strict=True))
    return Found([socket.arrivals for socket in sockets], early, own, children)


if __name__ == "__main__":
    main(run)
