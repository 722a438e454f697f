"""The server as a process of its own: killed, restarted, stopped, started wrongly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import KEY, chat, contents_of, events_of
from tests.processes import ROOT, ServerProcess, UpstreamProcess
from tests.service.calling import call, first_events, generate, watch


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[UpstreamProcess]:
    with UpstreamProcess(tmp_path / "upstream.log") as process:
        yield process


@pytest.fixture
def models(upstream: UpstreamProcess, tmp_path: Path) -> str:
    return f"--models={upstream.write_models(tmp_path / 'models.toml')}"


def test_after_kill_9_finished_missions_are_there(data_dir: Path, models: str) -> None:
    with ServerProcess(data_dir, models) as server:
        mission_id = generate(server, chat("a", "one two"))
        before = watch(server, mission_id)
        server.kill()

        with ServerProcess(data_dir, models) as again:
            path = f"/api/completion/mission-query?missionId={mission_id}"
            answer = json.loads(call(again, path)[1])
            after = watch(again, mission_id)

    assert answer["data"][0]["content"] == "echo: one two"
    assert after == before


def test_after_kill_9_a_mission_that_ran_goes_on_and_finished_nodes_are_not_run_again(
    data_dir: Path, models: str, upstream: UpstreamProcess
) -> None:
    slow = "slow {{a}} [[tokens=20 delay=0.05]]"
    with ServerProcess(data_dir, models) as server:
        mission_id = generate(server, chat("a", "quick"), chat("b", slow, "a"))
        seen = first_events(server, mission_id, 6)
        server.kill()

        with ServerProcess(data_dir, models) as again:
            rest = watch(again, mission_id, after=seen[-1]["seq"])

    events = [*seen, *rest]
    assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
    assert [
        event["statue"] for event in events if event.get("id") == "b" and "statue" in event
    ] == [
        "[RESTARTED]",
        "[DONE]",
    ]
    assert events[-1]["status"] == "succeeded"
    assert contents_of(events)["a"] == "echo: quick"
    assert sum(prompt == "quick" for prompt in upstream.seen()["prompts"]) == 1


def test_killed_again_and_again_a_mission_still_ends_with_its_exact_text(
    data_dir: Path, models: str
) -> None:
    chain = [chat("0", "go [[tokens=6 delay=0.03]]")]
    chain += [
        chat(str(i), f"{{{{{i - 1}}}}} [[tokens=6 delay=0.03]]", str(i - 1)) for i in range(1, 8)
    ]
    seen: list[dict[str, Any]] = []
    with ServerProcess(data_dir, models) as server:
        mission_id = generate(server, *chain)
    for pause in (0.1, 0.4, 0.25):
        with ServerProcess(data_dir, models):
            time.sleep(pause)
    with ServerProcess(data_dir, models) as server:
        seen = watch(server, mission_id)
        path = f"/api/completion/mission-query?missionId={mission_id}"
        results = json.loads(call(server, path)[1])["data"]

    assert [event["seq"] for event in seen] == [*range(1, len(seen) + 1)]
    assert contents_of(seen) == {result["id"]: result["content"] for result in results}
    assert all(result["status"] == "succeeded" for result in results)


def test_sigterm_ends_the_server_cleanly_and_the_mission_goes_on_after_the_start(
    data_dir: Path, models: str
) -> None:
    with ServerProcess(data_dir, models) as server:
        mission_id = generate(server, chat("a", "slow [[tokens=20 delay=0.05]]"))
        first_events(server, mission_id, 3)

        status = server.terminate()

        assert status == 0
        assert "Traceback" not in server.log
    with ServerProcess(data_dir, models) as again:
        assert watch(again, mission_id)[-1]["status"] == "succeeded"


def test_an_open_stream_does_not_keep_the_server_from_ending(data_dir: Path, models: str) -> None:
    with ServerProcess(data_dir, models) as server:
        mission_id = generate(server, chat("a", "never [[before_first=never]]"))
        url = f"{server.base_url}/api/completion/st/mission?missionId={mission_id}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=KEY), timeout=30):
            assert server.terminate() == 0


def test_a_second_server_on_the_same_data_folder_is_refused_in_one_line(
    data_dir: Path, models: str
) -> None:
    with ServerProcess(data_dir, models) as server:
        second = run_server(f"--data-dir={data_dir}", "--port=0")

        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert "data-dir" in second.stderr
        assert str(server.pid) in second.stderr


def run_server(*flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A server that is to refuse its start."""
    return subprocess.run(
        [sys.executable, "server.py", *flags],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("flags", "environ", "name"),
    [
        (["--port=99999"], {}, "port"),
        (["--prot=1"], {}, "--prot"),
        (["--address=0.0.0.0"], {}, "auth-keys"),
        (["--models=/nowhere.toml"], {}, "/nowhere.toml"),
        (["--log-format=xml"], {}, "log-format"),
        (["--config=/nowhere"], {}, "config"),
        ([], {"VISION_PORT": "many"}, "VISION_PORT"),
        ([], {"VISION_PROT": "1"}, "VISION_PROT"),
        (["--redis-url=http://x"], {}, "redis-url"),
        (["--data-dir=/proc/none"], {}, "data-dir"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line_that_names_it(
    tmp_path: Path, flags: list[str], environ: dict[str, str], name: str
) -> None:
    here = [] if any("data-dir" in flag for flag in flags) else [f"--data-dir={tmp_path}"]

    result = run_server(*here, *flags, **environ)

    assert result.returncode == 2
    assert result.stderr.count("\n") == 1, result.stderr
    assert name in result.stderr


def test_a_wrong_setting_is_told_before_the_parts_are_imported() -> None:
    """Importing them takes seconds; whoever mistypes a flag does not wait for that."""
    script = "import sys, runpy; sys.argv = ['server.py', '--port=many']\n"
    script += "try: runpy.run_path('server.py', run_name='__main__')\n"
    script += "except SystemExit as end: print(end.code, *sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    status, *imported = done.stdout.split()
    assert status == "2"
    assert not {"openai", "sqlalchemy", "vision.services"}.intersection(imported)


def test_a_port_that_is_taken_ends_the_start_with_one_line(
    data_dir: Path, models: str, tmp_path: Path
) -> None:
    with ServerProcess(data_dir, models) as server:
        second = run_server(f"--data-dir={tmp_path / 'other'}", f"--port={server.port}", models)

    assert second.returncode == 2
    assert [line for line in second.stderr.splitlines() if line.startswith("vision: port:")]
    assert "Traceback" not in second.stderr


def test_help_lists_every_setting() -> None:
    result = run_server("--help")

    assert result.returncode == 0
    for flag in ("--port", "--address", "--data-dir", "--redis-url", "--models", "--auth-keys"):
        assert flag in result.stdout
    assert "VISION_AUTH_KEYS" in result.stdout


def test_the_embedded_model_answers_while_the_server_was_already_there(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        prompt = chat("a", "Say hi", params={"max_tokens": 5, "seed": 1})
        _, body = call(server, "/api/completion/st/generate", {"promptList": [prompt]})

    events = events_of(body)
    assert events[-1]["status"] == "succeeded"
    assert contents_of(events)["a"]


def test_a_client_that_reads_nothing_does_not_hold_up_the_others(
    data_dir: Path, models: str
) -> None:
    with ServerProcess(data_dir, models) as server:
        mission_id = generate(server, chat("a", "much [[tokens=20000]]"))
        url = f"{server.base_url}/api/completion/st/mission?missionId={mission_id}"
        lazy = urllib.request.urlopen(urllib.request.Request(url, headers=KEY), timeout=30)

        events = watch(server, mission_id)
        rest = events_of(lazy.read())
        lazy.close()

    assert events[-1]["status"] == "succeeded"
    assert rest == events


def test_ctrl_c_at_a_terminal_ends_the_server_quietly(data_dir: Path, models: str) -> None:
    with ServerProcess(data_dir, models) as server:
        threading.Timer(0.1, os.kill, (server.pid, signal.SIGINT)).start()

        status = server._process.wait(15)

        assert status == 0
        assert "Traceback" not in server.log
