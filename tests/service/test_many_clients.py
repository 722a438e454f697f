"""Slow clients, many clients, clients that want too much: memory is bounded, others are served."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.contract.conftest import KEY, chat
from tests.processes import ServerProcess, UpstreamProcess
from tests.service.calling import generate, watch

# What the streams of the test below hold together if the server keeps for each what it has not
# taken: 40 x 4 MB, of text alone, however few events it came in. The bound is far below, and far
# above what a quiet server varies by.
LAZY_CLIENTS = 40
ALLOWED_GROWTH_KB = 80_000
NODES = 10
WORDS = " ".join(["w" * 199] * 2_000)  # 400 kB, echoed word by word


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[UpstreamProcess]:
    with UpstreamProcess(tmp_path / "upstream.log") as process:
        yield process


def memory_kb(server: ServerProcess) -> int:
    """Resident memory of the server process, children not counted."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_clients_that_read_nothing_cost_a_bounded_amount_of_memory(
    data_dir: Path, tmp_path: Path, upstream: UpstreamProcess
) -> None:
    models = upstream.write_models(tmp_path / "models.toml")
    with ServerProcess(data_dir, f"--models={models}") as server:
        prompts = [chat(str(n), f"{n} {WORDS} [[delay=0.001]]") for n in range(NODES)]
        mission_id = generate(server, *prompts)
        request = (
            f"GET /api/completion/st/mission?missionId={mission_id} HTTP/1.1\r\n"
            f"Host: x\r\nAuthorization: Vision chat\r\n\r\n"
        )
        lazy = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(LAZY_CLIENTS)]
        for each in lazy:
            each.sendall(request.encode())
        events = watch(server, mission_id)  # a client that reads is not held up
        before = memory_kb(server)
        events = watch(server, mission_id)
        growth = memory_kb(server) - before
        total = sum(len(json.dumps(event)) for event in events)
        for each in lazy:
            each.close()

    assert events[-1]["status"] == "succeeded"
    assert total > NODES * len(WORDS), "there was something to hold back"
    assert growth < ALLOWED_GROWTH_KB


@pytest.mark.gen_test(timeout=60)
async def test_a_thousand_subscribers_of_one_mission_all_get_every_event(
    data_dir: Path, tmp_path: Path, upstream: UpstreamProcess
) -> None:
    models = upstream.write_models(tmp_path / "models.toml")
    server = await asyncio.to_thread(ServerProcess, data_dir, f"--models={models}")
    with server:
        mission_id = generate(server, chat("a", "slow [[tokens=20 delay=0.2]]"))
        url = f"{server.base_url}/api/completion/st/mission?missionId={mission_id}"

        async def length(session: aiohttp.ClientSession) -> int:
            async with session.get(url) as response:
                return len((await response.read()).splitlines())

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=KEY, connector=connector) as session:
            lengths = await asyncio.gather(*(length(session) for _ in range(1000)))
        expected = len(watch(server, mission_id))

    assert set(lengths) == {expected}


@pytest.mark.gen_test(timeout=60)
async def test_one_key_cannot_use_up_a_process(
    data_dir: Path, tmp_path: Path, upstream: UpstreamProcess
) -> None:
    models = upstream.write_models(tmp_path / "models.toml")
    flags = [f"--models={models}", "--key-connections=2", "--key-subscriptions=1"]
    server = await asyncio.to_thread(ServerProcess, data_dir, *flags, "--auth-keys=mine,theirs")
    with server:
        url = server.base_url.replace("http", "ws") + "/api/completion/ws"
        mine = {"additional_headers": {"Authorization": "Vision mine"}, "proxy": None}
        theirs = {"additional_headers": {"Authorization": "Vision theirs"}, "proxy": None}
        async with connect(url, **mine) as one, connect(url, **mine):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url, **mine):
                    pass
            async with connect(url, **theirs) as other:
                await other.send('{"type": "ping"}')
                assert json.loads(await other.recv())["type"] == "pong"
            for number in range(2):
                prompt = chat("a", f"{number} never [[before_first=never]]")
                await one.send(json.dumps({"type": "generate", "promptList": [prompt]}))
            messages = [json.loads(await one.recv()) for _ in range(3)]
        async with connect(url, **mine) as again:
            await again.send('{"type": "ping"}')
            assert json.loads(await again.recv())["type"] == "pong"

    assert refused.value.response.status_code == 429
    assert json.loads(refused.value.response.body)["error"]["code"] == "limit_reached"
    assert [m["type"] for m in messages].count("accepted") == 2
    assert [m["code"] for m in messages if m["type"] == "error"] == ["limit_reached"]


@pytest.fixture
def pinging(data_dir: Path, tmp_path: Path, upstream: UpstreamProcess) -> Iterator[ServerProcess]:
    """A server that sends a ping each half second."""
    models = upstream.write_models(tmp_path / "models.toml")
    with ServerProcess(data_dir, f"--models={models}", "--ping-interval=0.5") as server:
        yield server


@pytest.mark.gen_test(timeout=60)
async def test_a_socket_that_answers_no_ping_is_closed(pinging: ServerProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", pinging.port)
    writer.write(
        b"GET /api/completion/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Vision chat\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")

    async with asyncio.timeout(10):
        await reader.read()  # pings, and then the end

    writer.close()


@pytest.mark.gen_test(timeout=60)
async def test_a_process_that_was_frozen_does_not_take_its_clients_for_gone(
    pinging: ServerProcess,
) -> None:
    url = pinging.base_url.replace("http", "ws") + "/api/completion/ws"
    async with connect(url, additional_headers=KEY, proxy=None) as client:
        os.kill(pinging.pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)  # five intervals, in which it sends no ping and reads no pong
        os.kill(pinging.pid, signal.SIGCONT)
        await asyncio.sleep(1.5)  # three, in which it looks whether its clients are there
        await client.send('{"type": "ping"}')
        answer = json.loads(await client.recv())

    assert answer["type"] == "pong"
