"""What missions that are kept cost those that run: one of the tables of `growth.py`.

The law: a mission that has ended stays in Valkey for `mission-ttl`, and neither a new mission nor
the replay of an old one may cost more for that. The memory is Valkey's own count of what it uses;
a row's is the growth since the first missions had ended, over the missions since then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from benchmarks.asking import ask_json
from benchmarks.lateness import Tokens, columns
from benchmarks.load import Stream, Target, http_request, stream, streams
from benchmarks.processes import exact_cpu
from benchmarks.report import Row, Table
from benchmarks.rig import Rig, Size, generate, one_node
from tests.processes import ServerProcess
from tests.valkeys import Valkey

KEPT = {Size.QUICK: (100, 1_000), Size.FULL: (100, 1_000, 10_000)}

# A short answer of a model, as fast as it comes.
TOKENS = 20

# Missions and replays at once: less than the room of a server.
AT_ONCE = 32

# So often for a row: 256 missions in the quick way, which are kept too.
ROUNDS = {Size.QUICK: 8, Size.FULL: 32}


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of processor time."""

    server: float
    valkey: float

    def __sub__(self, before: Used) -> Used:
        return Used(self.server - before.server, self.valkey - before.valkey)


@dataclass(frozen=True, slots=True)
class Turn:
    """Some rounds of streams, and what they took."""

    used: Used
    wall: float  # seconds
    tokens: Tokens


@dataclass(slots=True)
class Shelf:
    """A server and a Valkey of its own, and how many missions have ended there."""

    server: ServerProcess
    valkey: Valkey
    kept: int = 0

    @property
    def memory(self) -> int:
        """Bytes that Valkey uses for what it holds."""
        return int(self.valkey.client.info("memory")["used_memory"])

    async def run(self, rounds: int) -> Turn:
        """So often so many missions at once."""
        target = generate(self.server, TOKENS, 0)
        turn = await self._measure([target] * AT_ONCE, rounds)
        self.kept += rounds * AT_ONCE
        return turn

    async def fill(self, count: int) -> None:
        """Until so many are kept."""
        target = generate(self.server, TOKENS, 0)
        while self.kept < count:
            more = min(AT_ONCE, count - self.kept)
            await streams(target, more)
            self.kept += more

    async def replay(self, replays: Sequence[Target], rounds: int) -> Used:
        return (await self._measure(replays, rounds)).used

    async def first_missions(self) -> list[Target]:
        """Replays of as many missions as there are at once; they have ended."""
        targets = []
        for _ in range(AT_ONCE):
            path, body = "/api/completion/generate", one_node(TOKENS, 0)
            answer = await ask_json(self.server.port, path, body)
            targets.append(self._replay(answer["data"]["missionId"]))
        await self._measure(targets, 1)
        self.kept += AT_ONCE
        return targets

    def _replay(self, mission_id: str) -> Target:
        path = f"/api/completion/st/mission?missionId={mission_id}"
        request = http_request("GET", path, b"", {"Authorization": "Vision chat"})
        return Target(self.server.port, request, b"[FINISHED]")

    async def _measure(self, targets: Sequence[Target], rounds: int) -> Turn:
        before, begin = self._used(), time.perf_counter()
        found = [await _whole(targets) for _ in range(rounds)]
        wall = time.perf_counter() - begin
        return Turn(self._used() - before, wall, Tokens.of(chain.from_iterable(found)))

    def _used(self) -> Used:
        return Used(exact_cpu(self.server.pid), exact_cpu(self.valkey.process.pid))


async def _whole(targets: Sequence[Target]) -> list[Stream]:
    """All at once. A figure of streams that did not end, or were not whole, would say nothing."""
    found = await asyncio.gather(*map(stream, targets))
    if any(not each.complete or each.tokens != TOKENS for each in found):
        raise RuntimeError("a mission or a replay of one was not whole")
    return found


async def missions_kept(made: Rig, size: Size) -> Table:
    """One server for all rows."""
    with (
        Valkey(made.folder / "valkey", "--appendonly", "yes") as valkey,
        made.server(f"--redis-url={valkey.url}") as server,
    ):
        shelf = Shelf(server, valkey)
        replays = await shelf.first_missions()
        reads = [await _whole([made.direct(TOKENS, 0)] * AT_ONCE) for _ in range(ROUNDS[size])]
        direct = Tokens.of(chain.from_iterable(reads))
        first_kept, first_memory = shelf.kept, shelf.memory
        found = []
        for count in KEPT[size]:
            await shelf.fill(count)
            memory = (shelf.memory - first_memory) / (shelf.kept - first_kept)
            missions = await shelf.run(ROUNDS[size])
            replayed = await shelf.replay(replays, ROUNDS[size])
            found.append((count, missions, replayed, memory))
    each = ROUNDS[size] * AT_ONCE
    first = found[0]
    rows = [
        Row(
            f"{count:,} kept",
            {
                "CPU us/mission": missions.used.server / each * 1e6,
                "to first": missions.used.server / first[1].used.server,
                "Valkey us/mission": missions.used.valkey / each * 1e6,
                "wall ms/mission": missions.wall / each * 1e3,
                **columns(missions.tokens, direct),
                "CPU us/replay": replayed.server / each * 1e6,
                "replay to first": replayed.server / first[2].server,
                "Valkey us/replay": replayed.valkey / each * 1e6,
                "bytes/mission": memory,
            },
        )
        for count, missions, replayed, memory in found
    ]
    title = f"missions of one node and {TOKENS} tokens, {AT_ONCE} at once, and replays of old ones"
    return Table("growth-kept", title, rows)
