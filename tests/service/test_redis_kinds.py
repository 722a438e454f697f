"""The same missions on a Redis Cluster, behind Sentinel, and on Redis itself."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.conftest import require
from tests.contract.conftest import chat, contents_of
from tests.processes import ServerProcess, UpstreamProcess
from tests.service.calling import call, first_events, generate, watch
from tests.valkeys import Valkey, cluster, free_port, sentinel, until


@pytest.fixture
def models(tmp_path: Path) -> Iterator[str]:
    with UpstreamProcess(tmp_path / "upstream.log") as upstream:
        yield f"--models={upstream.write_models(tmp_path / 'models.toml')}"


def play(one: ServerProcess, two: ServerProcess) -> None:
    """Missions through one process, watched, queried and cancelled through the other."""
    missions = [
        generate(one, chat("a", f"{number} [[tokens=10 delay=0.02]]"), chat("b", "{{a}}", "a"))
        for number in range(12)
    ]
    for mission_id in missions:
        events = watch(two, mission_id)
        assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
        query = f"/api/completion/mission-query?missionId={mission_id}"
        results = json.loads(call(two, query)[1])["data"]
        assert contents_of(events) == {result["id"]: result["content"] for result in results}
        assert events[-1]["status"] == "succeeded"
    endless = generate(one, chat("a", "never [[before_first=never]]"))
    answer = json.loads(call(two, "/api/completion/cancel", {"missionId": endless})[1])
    assert answer["data"]["status"] == "cancelled"


def test_a_cluster_of_three_primaries_carries_missions(tmp_path: Path, models: str) -> None:
    with (
        cluster(tmp_path / "cluster") as (url, nodes),
        ServerProcess(tmp_path / "one", models, f"--redis-url={url}") as one,
        ServerProcess(tmp_path / "two", models, f"--redis-url={url}") as two,
    ):
        play(one, two)

        assert all(node.client.dbsize() for node in nodes), "each primary holds some missions"


def test_missions_outlast_a_failover_behind_sentinel(tmp_path: Path, models: str) -> None:
    with (
        sentinel(tmp_path / "sentinel") as (url, primary, replica),
        ServerProcess(tmp_path / "one", models, f"--redis-url={url}") as server,
    ):
        mission_id = generate(server, chat("a", "slow [[tokens=60 delay=0.1]]"))
        seen = first_events(server, mission_id, 3)
        until(lambda: replica.client.xlen(f"vision:{{{mission_id}}}:log") >= 3)

        primary.kill()
        until(lambda: replica.client.info("replication")["role"] == "master")
        until(lambda: b"ok" in ready(server))

        events = watch(server, mission_id, after=seen[-1]["seq"])
        assert [event["seq"] for event in [*seen, *events]] == [*range(1, events[-1]["seq"] + 1)]
        assert events[-1]["status"] == "succeeded"


def test_missions_follow_a_primary_that_is_demoted_and_keeps_its_connections(
    tmp_path: Path, models: str
) -> None:
    with (
        sentinel(tmp_path / "sentinel") as (url, primary, replica),
        ServerProcess(tmp_path / "one", models, f"--redis-url={url}") as server,
    ):
        mission_id = generate(server, chat("a", "slow [[tokens=60 delay=0.1]]"))
        seen = first_events(server, mission_id, 3)
        connected = primary.client.client_list(_type="normal")

        hand_over(url, primary, replica)
        until(lambda: b"ok" in ready(server))

        events = watch(server, mission_id, after=seen[-1]["seq"])
        assert [event["seq"] for event in [*seen, *events]] == [*range(1, events[-1]["seq"] + 1)]
        assert events[-1]["status"] == "succeeded"
        assert watch(server, generate(server, chat("a", "hi")))[-1]["status"] == "succeeded"
        assert len(connected) > 1, "the server was connected to the old primary"


def hand_over(url: str, primary: Valkey, replica: Valkey) -> None:
    """The two change places without a loss, and nobody closes a connection of the old primary.

    A sentinel that did it would close them all: so it is told of the new one afterwards.
    """
    with redis.Redis(port=urlsplit(url).port) as watching:
        watching.sentinel_remove("main")
        primary.client.execute_command("FAILOVER")
        until(lambda: replica.client.info("replication")["role"] == "master")
        until(lambda: primary.client.info("replication")["role"] == "slave")
        watching.sentinel_monitor("main", "127.0.0.1", replica.port, 1)


def test_debians_redis_carries_missions_too(tmp_path: Path, models: str) -> None:
    program, port = require("redis-server"), free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    try:
        url = f"--redis-url=redis://127.0.0.1:{port}"
        with (
            ServerProcess(tmp_path / "one", models, url) as one,
            ServerProcess(tmp_path / "two", models, url) as two,
        ):
            play(one, two)
    finally:
        process.kill()
        process.wait(10)


def test_a_redis_that_comes_late_is_waited_for(tmp_path: Path, models: str) -> None:
    port = free_port()
    url = f"--redis-url=redis://127.0.0.1:{port}"
    with ServerProcess(tmp_path / "one", models, url) as server:
        late: list[Valkey] = []
        threading.Timer(1.0, lambda: late.append(Valkey(tmp_path / "late", port=port))).start()
        until(lambda: late)
        with late[0]:
            until(lambda: b"ok" in ready(server))
            assert watch(server, generate(server, chat("a", "hi")))[-1]["status"] == "succeeded"


def ready(server: ServerProcess) -> bytes:
    try:
        return call(server, "/readyz")[1]
    except OSError:
        return b""
