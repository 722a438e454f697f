"""Missions for minutes, under random kills and freezes, with clients that are cut off all the time.

    python -m benchmarks.soak [--minutes 5] [--processes 3] [--seed 1]

Invariants, each checked for every mission: it ends; its events have consecutive numbers; no client
has seen an event twice or missed one; every result is the text of its tokens put together; a node
that had finished before its process was lost was not run again. Exits with 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import aiohttp

from tests.contract.conftest import KEY, chat, contents_of
from tests.processes import ServerProcess, UpstreamProcess
from tests.service.calling import call, watch
from tests.service.resuming import CUT_OFF, Client
from tests.valkeys import Valkey

PAUSE = (0.5, 3.0)  # seconds between two accidents
FROZEN = (0.2, 4.0)  # seconds that a process stands still; longer than a claim, sometimes
CLAIM_SECONDS = 2
AT_ONCE = 12  # missions that run at the same time


class Soak:
    """The processes, the accidents, and what the clients have seen."""

    def __init__(self, folder: Path, flags: list[str], count: int, seed: int) -> None:
        self.luck = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.clients: dict[str, list[Client]] = {}
        self._folder = folder
        self._flags = flags
        self.servers = {
            f"server-{number}": self.start(f"server-{number}") for number in range(count)
        }

    def start(self, name: str) -> ServerProcess:
        return ServerProcess(self._folder / name, *self._flags)

    def bases(self) -> list[str]:
        return [server.base_url for server in self.servers.values()]

    async def accidents(self, until: float) -> None:
        while time.monotonic() < until:
            await asyncio.sleep(self.luck.uniform(*PAUSE))
            name = self.luck.choice(list(self.servers))
            if self.luck.random() < 0.6:
                self.counts["kills"] += 1
                self.servers[name].kill()
                self.servers[name] = await asyncio.to_thread(self.start, name)
            else:
                self.counts["freezes"] += 1
                os.kill(self.servers[name].pid, signal.SIGSTOP)
                await asyncio.sleep(self.luck.uniform(*FROZEN))
                os.kill(self.servers[name].pid, signal.SIGCONT)

    async def work(self, session: aiohttp.ClientSession, until: float) -> None:
        while time.monotonic() < until:
            mission_id = await self._begin(session)
            clients = [Client(mission_id, self.bases, self.luck) for _ in range(2)]
            self.clients[mission_id] = clients
            async with asyncio.timeout(120):
                await asyncio.gather(*(client.run(session, longest=40) for client in clients))
            self.counts["missions"] += 1

    async def _begin(self, session: aiohttp.ClientSession) -> str:
        number = self.luck.randrange(10**9)
        body = {
            "promptList": [
                chat("a", f"{number} [[tokens=20 delay=0.02]]"),
                chat("b", f"{number} too [[tokens=30 delay=0.02]]"),
                chat("c", "{{a}} and {{b}}", "a", "b"),
            ]
        }
        headers = {"Idempotency-Key": f"soak-{number}"}
        while True:
            url = f"{self.luck.choice(self.bases())}/api/completion/generate"
            try:
                async with asyncio.timeout(10):
                    async with session.post(url, json=body, headers=headers) as response:
                        if response.status == 200:
                            return str((await response.json())["data"]["missionId"])
            except CUT_OFF:
                pass
            await asyncio.sleep(0.1)

    def kill_all(self) -> None:
        """Leave no server behind."""
        for server in self.servers.values():
            server.kill()

    def check(self, server: ServerProcess) -> None:
        """Raise AssertionError for the first invariant that does not hold."""
        for mission_id, clients in self.clients.items():
            log = watch(server, mission_id)
            assert [event["seq"] for event in log] == [*range(1, len(log) + 1)], mission_id
            for client in clients:
                assert client.events == log, mission_id
            query = f"/api/completion/mission-query?missionId={mission_id}"
            results = json.loads(call(server, query)[1])["data"]
            assert contents_of(log) == {r["id"]: r["content"] for r in results}, mission_id
            assert all(r["status"] == "succeeded" for r in results), mission_id
            ends = Counter(e["id"] for e in log if e["type"] == "done")
            assert set(ends.values()) == {1}, mission_id
            self.counts["events"] += len(log)
            self.counts["restarted nodes"] += sum(e["type"] == "restarted" for e in log)
            self.counts["cuts"] += sum(client.cuts for client in clients)


async def soak(minutes: float, processes: int, seed: int) -> Counter[str]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        valkey = stack.enter_context(Valkey(folder / "valkey", "--appendonly", "yes"))
        upstream = stack.enter_context(UpstreamProcess(folder / "upstream.log"))
        models = upstream.write_models(folder / "models.toml")
        flags = [f"--redis-url={valkey.url}", f"--models={models}"]
        found = Soak(folder, [*flags, f"--claim-timeout={CLAIM_SECONDS}"], processes, seed)
        stack.callback(found.kill_all)
        until = time.monotonic() + minutes * 60
        async with aiohttp.ClientSession(headers=KEY) as session, asyncio.TaskGroup() as group:
            group.create_task(found.accidents(until))
            for _ in range(AT_ONCE):
                group.create_task(found.work(session, until))
        with await asyncio.to_thread(found.start, "judge") as judge:
            found.check(judge)
        return found.counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts = asyncio.run(soak(options.minutes, options.processes, options.seed))
    for name, count in sorted(counts.items()):
        print(f"{name:<16}{count:>10,}")
    print("every invariant held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
