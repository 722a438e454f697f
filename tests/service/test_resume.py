"""A client that was cut off anywhere goes on from its cursor: every event once, on any process."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.contract.conftest import KEY, chat, contents_of
from tests.processes import ServerProcess, UpstreamProcess
from tests.service.calling import call, generate, watch
from tests.service.resuming import Client
from tests.valkeys import Valkey

SEED = 20261124  # a failure is looked into with the same luck
MISSIONS = 12
CLIENTS = 4  # of each mission


class Servers:
    """Two servers on one Redis, of which one is killed and started again now and then."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self._folder = folder
        self._flags = flags
        self.enough = False
        self.running = {name: self.start(name) for name in ("one", "two")}

    def start(self, name: str) -> ServerProcess:
        return ServerProcess(self._folder / name, *self._flags)

    def bases(self) -> list[str]:
        return [server.base_url for server in self.running.values()]

    async def churn(self, luck: random.Random) -> None:
        while not self.enough:
            name = luck.choice(list(self.running))
            self.running[name].kill()
            self.running[name] = await asyncio.to_thread(self.start, name)
            await asyncio.sleep(luck.uniform(0.3, 1))

    def stop(self) -> None:
        for server in self.running.values():
            server.kill()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with (
        Valkey(tmp_path / "valkey") as valkey,
        UpstreamProcess(tmp_path / "upstream.log") as upstream,
    ):
        models = upstream.write_models(tmp_path / "models.toml")
        flags = [f"--redis-url={valkey.url}", f"--models={models}", "--claim-timeout=1"]
        found = Servers(tmp_path, *flags)
        yield found
        found.stop()


@pytest.mark.gen_test(timeout=110)
@pytest.mark.timeout(120)
async def test_hundreds_of_cuts_and_killed_processes_lose_and_double_nothing(
    servers: Servers,
) -> None:
    luck = random.Random(SEED)
    first = servers.running["one"]
    missions = [
        generate(
            first,
            chat("a", f"{number} [[tokens=40 delay=0.03]]"),
            chat("b", f"{number} then [[tokens=30 delay=0.03]]", "a"),
            chat("c", "quick {{a}}", "a"),
        )
        for number in range(MISSIONS)
    ]
    clients = [Client(each, servers.bases, luck) for each in missions for _ in range(CLIENTS)]
    churning = asyncio.create_task(servers.churn(luck))
    async with aiohttp.ClientSession(headers=KEY) as session:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.run(session, longest=25))
    servers.enough = True
    await churning

    server = await asyncio.to_thread(servers.start, "last")
    with server:
        for number, mission_id in enumerate(missions):
            log = watch(server, mission_id)
            path = f"/api/completion/mission-query?missionId={mission_id}"
            results = json.loads(call(server, path)[1])["data"]
            for client in clients[number * CLIENTS : (number + 1) * CLIENTS]:
                assert client.events == log
            assert contents_of(log) == {result["id"]: result["content"] for result in results}
            assert log[-1]["status"] == "succeeded"
    assert sum(client.cuts for client in clients) > 200
