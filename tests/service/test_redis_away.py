"""Redis dies, fills up, turns read-only, forgets its scripts: what was acknowledged is there."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import KEY, chat, contents_of, events_of
from tests.processes import ServerProcess, UpstreamProcess
from tests.service.calling import call, generate, watch
from tests.valkeys import Valkey, free_port, until

SLOW = "slow [[tokens=40 delay=0.05]]"
APPEND_ONLY = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def models(tmp_path: Path) -> Iterator[str]:
    with UpstreamProcess(tmp_path / "upstream.log") as upstream:
        yield f"--models={upstream.write_models(tmp_path / 'models.toml')}"


def refused(server: ServerProcess) -> tuple[int, dict[str, Any], str | None]:
    """What a new mission is answered: status, body and `Retry-After`."""
    body = json.dumps({"promptList": [chat("a", "hi")]}).encode()
    request = urllib.request.Request(
        f"{server.base_url}/api/completion/generate", data=body, headers=KEY
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer), None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers["Retry-After"]


def is_ready(server: ServerProcess) -> bool:
    try:
        return call(server, "/readyz")[0] == 200
    except urllib.error.HTTPError as error:
        error.close()
        return False


def check(events: list[dict[str, Any]], node_id: str = "a") -> None:
    assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
    assert events[-1]["status"] == "succeeded"
    assert len(contents_of(events)[node_id].split()) == 40


def test_a_stream_pauses_while_redis_is_away_and_goes_on_when_it_is_back(
    tmp_path: Path, models: str
) -> None:
    port = free_port()
    folder, url = tmp_path / "valkey", f"--redis-url=redis://127.0.0.1:{port}"
    with ServerProcess(tmp_path / "one", models, url) as server:
        with Valkey(folder, *APPEND_ONLY, port=port):
            until(lambda: is_ready(server))
            mission_id = generate(server, chat("a", SLOW))
            path = f"{server.base_url}/api/completion/st/mission?missionId={mission_id}"
            stream = urllib.request.urlopen(urllib.request.Request(path, headers=KEY), timeout=60)
            first = [stream.readline() for _ in range(3)]

        status, answer, retry_after = refused(server)
        assert (status, answer["error"]["code"]) == (503, "store_unavailable")
        assert int(retry_after) > 0
        assert not is_ready(server)

        with Valkey(folder, *APPEND_ONLY, port=port), stream:
            check(events_of(b"".join([*first, stream.read()])))
            until(lambda: is_ready(server))
            assert refused(server)[0] == 200


def test_the_embedded_valkey_that_dies_comes_back_and_the_mission_goes_on(
    data_dir: Path, models: str
) -> None:
    with ServerProcess(data_dir, models) as server:
        mission_id = generate(server, chat("a", SLOW))
        valkey = int((data_dir / "valkey.lock").read_text())

        os.kill(valkey, signal.SIGKILL)

        until(lambda: is_ready(server))
        check(watch(server, mission_id))


def test_a_full_redis_is_waited_for_and_nothing_is_lost(tmp_path: Path, models: str) -> None:
    with (
        Valkey(tmp_path / "valkey") as valkey,
        ServerProcess(tmp_path / "one", models, f"--redis-url={valkey.url}") as server,
    ):
        mission_id = generate(server, chat("a", SLOW))
        until(lambda: valkey.client.xlen(f"vision:{{{mission_id}}}:log") >= 2)
        valkey.client.config_set("maxmemory", 1)
        status, answer, retry_after = refused(server)
        assert (status, answer["error"]["code"]) == (503, "store_unavailable")
        assert retry_after
        valkey.client.config_set("maxmemory", 0)

        check(watch(server, mission_id))


def test_a_read_only_redis_is_waited_for_and_nothing_is_lost(tmp_path: Path, models: str) -> None:
    with (
        Valkey(tmp_path / "valkey") as valkey,
        ServerProcess(tmp_path / "one", models, f"--redis-url={valkey.url}") as server,
    ):
        mission_id = generate(server, chat("a", SLOW))
        until(lambda: valkey.client.xlen(f"vision:{{{mission_id}}}:log") >= 2)
        valkey.client.execute_command("REPLICAOF", "127.0.0.1", free_port())
        assert refused(server)[0] == 503
        valkey.client.execute_command("REPLICAOF", "NO", "ONE")

        check(watch(server, mission_id))


def test_a_flushed_script_cache_is_not_felt(tmp_path: Path, models: str) -> None:
    with (
        Valkey(tmp_path / "valkey") as valkey,
        ServerProcess(tmp_path / "one", models, f"--redis-url={valkey.url}") as server,
    ):
        mission_id = generate(server, chat("a", SLOW))
        for wanted in (2, 6, 12, 20):
            until(
                lambda wanted=wanted: valkey.client.xlen(f"vision:{{{mission_id}}}:log") >= wanted
            )
            valkey.client.script_flush()

        check(watch(server, mission_id))


def test_a_finished_mission_expires_with_a_clear_answer(data_dir: Path, models: str) -> None:
    with ServerProcess(data_dir, models, "--mission-ttl=1") as server:
        mission_id = generate(server, chat("a", "hi"))
        watch(server, mission_id)
        path = f"/api/completion/st/mission?missionId={mission_id}&after=1"

        def code() -> str | None:
            try:
                call(server, path)
            except urllib.error.HTTPError as error:
                with error:
                    return json.load(error)["error"]["code"]
            return None

        until(lambda: code() == "unknown_mission")
