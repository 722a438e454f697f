"""What the embedded Valkey acknowledged is there after a start, whoever was killed in between."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from redis.asyncio import Redis

from tests.service.owners import Owner, a_new_process, is_alive, is_gone
from vision.children import DataFolder
from vision.errors import SettingError, StoreUnavailable
from vision.valkey import LONGEST_SOCKET_PATH, EmbeddedValkey, socket_path

START = """
valkey = EmbeddedValkey(folder)
await valkey.start()
say(valkey.pid)
"""
# Writes until it is killed, and says every number that was acknowledged.
WRITE = """
from redis.asyncio import Redis
client = Redis.from_url(valkey.url)
number = 0
while True:
    number += 1
    await client.set(f"key:{number}", number)
    say(number)
"""
KEYS_BEFORE_THE_KILL = 500


@pytest.fixture
def folder(tmp_path):
    taken = DataFolder(tmp_path)
    yield taken
    taken.close()


@pytest.fixture
def valkey(io_loop, folder):
    running = EmbeddedValkey(folder)
    io_loop.run_sync(running.start)
    yield running
    io_loop.run_sync(running.stop)


@pytest.fixture
def client(io_loop, valkey):
    connected = Redis.from_url(valkey.url, decode_responses=True)
    yield connected
    io_loop.run_sync(connected.aclose)


@pytest.mark.gen_test
async def test_start_returns_when_it_answers_on_a_private_socket(valkey, client):
    assert valkey.ready
    assert await client.ping()
    socket = os.stat(valkey.url.removeprefix("unix://"))
    assert stat.S_IMODE(socket.st_mode) == 0o700


@pytest.mark.gen_test
async def test_it_appends_every_change_takes_no_snapshots_and_drops_nothing(client):
    config = await client.config_get("*")
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "enable-debug-command": "no",
        "enable-module-command": "no",
    }
    assert {name: config[name] for name in wanted} == wanted


@pytest.mark.gen_test
async def test_killed_valkey_comes_back_with_its_data_at_the_same_address(valkey, client):
    address, killed = valkey.url, valkey.pid
    await client.set("before", "the kill")
    os.kill(killed, signal.SIGKILL)
    await a_new_process(valkey, killed)
    assert valkey.url == address
    assert await client.get("before") == "the kill"


def test_killed_server_started_again_at_once_finds_every_acknowledged_key(tmp_path):
    with Owner(tmp_path, START + WRITE) as first:
        pid = int(first.hear())
        acknowledged = 0
        while acknowledged < KEYS_BEFORE_THE_KILL:
            acknowledged = int(first.hear())
    count = """
from redis.asyncio import Redis
client = Redis.from_url(valkey.url)
say(await client.dbsize(), await client.get("key:500"))
"""
    with Owner(tmp_path, START + count) as second:
        assert int(second.hear()) != pid
        keys, value = second.hear().split()
        assert int(keys) >= acknowledged
        assert value == "b'500'"


def test_valkey_is_gone_within_two_seconds_of_a_killed_server(tmp_path):
    with Owner(tmp_path, START) as server:
        pid = int(server.hear())
        assert is_alive(pid)
    assert is_gone(pid, within=2.0)


def test_half_a_write_at_the_end_of_the_log_does_not_stop_the_start(tmp_path):
    ask = """
from redis.asyncio import Redis
client = Redis.from_url(valkey.url)
"""
    with Owner(tmp_path, START + ask + 'say(await client.set("whole", 1))') as first:
        pid = int(first.hear())
        assert first.hear() == "True"
    assert is_gone(pid, within=2.0)
    log = next((tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof"))
    with log.open("ab") as end:
        end.write(b"*3\r\n$3\r\nSET\r\n$4\r\nha")
    with Owner(tmp_path, START + ask + 'say(await client.get("whole"))') as second:
        assert is_alive(int(second.hear()))
        assert second.hear() == "b'1'"


@pytest.mark.gen_test
async def test_log_that_cannot_be_read_ends_the_start_with_valkeys_own_words(io_loop, folder):
    files = folder.path / "valkey" / "appendonlydir"
    os.makedirs(files)
    manifest = files.joinpath("appendonly.aof.manifest")
    manifest.write_text("nonsense\n")
    with pytest.raises(StoreUnavailable, match=r"(?s)^Valkey did not start: .*manifest"):
        await EmbeddedValkey(folder).start()


@pytest.mark.gen_test
async def test_stop_ends_the_process_and_lets_the_folder_go(io_loop, folder):
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    pid = valkey.pid
    began = time.monotonic()
    await valkey.stop()
    assert time.monotonic() - began < 2.0
    assert not is_alive(pid)
    assert not valkey.ready
    assert valkey.pid is None


@given(name=st.text(alphabet="abé文", min_size=1, max_size=200))
def test_socket_path_always_fits_and_lies_where_only_we_can_look(name):
    path = socket_path(Path("/nowhere") / name)
    assert len(os.fsencode(path)) <= LONGEST_SOCKET_PATH
    if path.parent != Path("/nowhere") / name:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.parent.rmdir()


def folder_of_the_socket_is_left(valkey: EmbeddedValkey) -> bool:
    return Path(valkey.url.removeprefix("unix://")).parent.exists()


@pytest.mark.gen_test
async def test_folder_with_a_path_too_long_for_a_socket_works(io_loop, tmp_path):
    folder = DataFolder(tmp_path / ("long " * 20) / "data")
    valkey = EmbeddedValkey(folder)
    await valkey.start()
    client = Redis.from_url(valkey.url)
    assert await client.ping()
    await client.aclose()
    await valkey.stop()
    folder.close()
    assert not folder_of_the_socket_is_left(valkey)


def test_short_socket_folder_that_others_can_write_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    long = Path("/nowhere") / ("x" * 200)
    socket_path(long).parent.chmod(0o777)
    with pytest.raises(SettingError, match=r"^data-dir: .* is not ours$"):
        socket_path(long)
