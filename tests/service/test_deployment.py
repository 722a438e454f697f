"""The deployment as it is shipped: supervisord.conf and deploy/nginx.conf, really run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from tests.conftest import require
from tests.contract.conftest import KEY, chat, contents_of
from tests.nginx import configuration
from tests.processes import ROOT, UpstreamProcess
from tests.valkeys import Valkey, free_port, until


@dataclass(frozen=True)
class Site:
    """Two server processes under supervisord, one Redis, nginx before them."""

    folder: Path
    url: str
    ports: tuple[int, int]

    def control(self, *words: str) -> str:
        """What supervisorctl says."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", "supervisord.conf"]
        return subprocess.run(
            [*command, *words],
            cwd=ROOT,
            env=environ(self.folder, self.ports[0]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout

    def pid(self, port: int) -> int:
        return int(self.control("pid", f"vision:{port}"))

    def ready(self) -> bool:
        """Whether both processes take missions."""
        for port in self.ports:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            except OSError:
                return False
        return True


def environ(folder: Path, first_port: int, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("VISION_")}
    return ours | {"PROCESSES": "2", "FIRST_PORT": str(first_port), "RUN_DIR": str(folder)} | more


def two_ports() -> int:
    """The first of two free ports in a row."""
    while True:
        first = free_port()
        try:
            socket.create_server(("127.0.0.1", first + 1)).close()
        except OSError:
            continue
        return first


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    nginx, first, front = require("nginx"), two_ports(), free_port()
    with (
        Valkey(tmp_path / "valkey", "--appendonly", "yes") as valkey,
        UpstreamProcess(tmp_path / "upstream.log") as upstream,
    ):
        models = upstream.write_models(tmp_path / "models.toml")
        settings = {"VISION_REDIS_URL": valkey.url, "VISION_MODELS": str(models)}
        settings |= {"VISION_CLAIM_TIMEOUT": "2"}
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", "supervisord.conf"],
            cwd=ROOT,
            env=environ(tmp_path, first, **settings),
            stdout=subprocess.DEVNULL,
        )
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        text = text.replace("8901", str(first)).replace("8902", str(first + 1))
        (tmp_path / "vision.conf").write_text(
            text.replace("listen 8080", f"listen 127.0.0.1:{front}")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(configuration(tmp_path, f"include {tmp_path}/vision.conf;"))
        proxy = subprocess.Popen([nginx, "-c", str(config), "-p", str(tmp_path)])
        found = Site(tmp_path, f"http://127.0.0.1:{front}", (first, first + 1))
        try:
            until(found.ready)
            yield found
        finally:
            for process in (proxy, supervisor):
                process.terminate()
            for process in (proxy, supervisor):
                process.wait(60)


def prompts(seconds: float) -> list[dict[str, Any]]:
    tokens = int(seconds / 0.05)
    return [chat("a", f"slow [[tokens={tokens} delay=0.05]]"), chat("b", "then {{a}}", "a")]


async def generate(session: aiohttp.ClientSession, site: Site, seconds: float) -> str:
    """Start a mission once, however often it has to be said."""
    url, headers = f"{site.url}/api/completion/generate", {"Idempotency-Key": str(uuid.uuid4())}
    async with asyncio.timeout(30):
        while True:
            body = {"promptList": prompts(seconds)}
            async with session.post(url, json=body, headers=headers) as response:
                if response.status == 200:
                    return (await response.json())["data"]["missionId"]
                assert response.status in (502, 503), await response.text()
            await asyncio.sleep(0.1)


async def follow(
    session: aiohttp.ClientSession, site: Site, mission_id: str
) -> list[dict[str, Any]]:
    """All events of a mission, with as many connections as it takes."""
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(60):
        while not events or events[-1]["type"] != "finished":
            url = f"{site.url}/api/completion/st/mission?missionId={mission_id}&after={len(events)}"
            try:
                async with session.get(url) as response:
                    async for line in response.content:
                        events.append(json.loads(line))
            except (aiohttp.ClientError, json.JSONDecodeError):
                await asyncio.sleep(0.1)  # cut off, or no process is there yet
    return events


def check(events: list[dict[str, Any]]) -> None:
    assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
    assert events[-1]["status"] == "succeeded"
    assert set(contents_of(events)) == {"a", "b"}


@pytest.mark.gen_test(timeout=90)
async def test_a_killed_process_comes_back_and_its_missions_go_on(site: Site) -> None:
    async with aiohttp.ClientSession(headers=KEY) as session:
        missions = [await generate(session, site, 4) for _ in range(6)]
        following = [asyncio.create_task(follow(session, site, each)) for each in missions]
        victim = await asyncio.to_thread(site.pid, site.ports[0])

        os.kill(victim, signal.SIGKILL)

        for events in await asyncio.gather(*following):
            check(events)
    await asyncio.to_thread(until, site.ready)
    assert await asyncio.to_thread(site.pid, site.ports[0]) != victim


@pytest.mark.gen_test(timeout=90)
async def test_a_rolling_restart_under_load_fails_no_mission_and_loses_no_event(site: Site) -> None:
    async with aiohttp.ClientSession(headers=KEY) as session:
        following = []

        async def load() -> None:
            while True:
                mission_id = await generate(session, site, 1)
                following.append(asyncio.create_task(follow(session, site, mission_id)))
                await asyncio.sleep(0.2)

        loading = asyncio.create_task(load())
        for port in site.ports:
            await asyncio.to_thread(site.control, "restart", f"vision:{port}")
            await asyncio.to_thread(until, site.ready)
        loading.cancel()
        await asyncio.wait({loading})

        assert loading.cancelled(), loading.exception()
        for events in await asyncio.gather(*following):
            check(events)
        assert len(following) > 5


@pytest.mark.gen_test(timeout=60)
async def test_a_websocket_passes_nginx_and_is_told_to_connect_again(site: Site) -> None:
    url = site.url.replace("http", "ws") + "/api/completion/ws"
    async with connect(url, additional_headers=KEY, proxy=None) as socket:
        await socket.send(json.dumps({"type": "generate", "promptList": prompts(0.1)}))
        kinds = [json.loads(await socket.recv())["type"]]
        while kinds[-1] != "finished":
            kinds.append(json.loads(await socket.recv())["type"])
        await asyncio.to_thread(site.control, "stop", "vision:*")
        await socket.wait_closed()

    assert kinds[0] == "accepted"
    assert 3000 <= socket.close_code < 3500


def test_the_shipped_files_agree_on_the_ports() -> None:
    ports = re.findall(r"127\.0\.0\.1:(\d+)", (ROOT / "deploy" / "nginx.conf").read_text())
    first = re.search(r"FIRST_PORT=(\d+)", (ROOT / "supervisord.conf").read_text())[1]

    assert ports == [first, str(int(first) + 1)]
