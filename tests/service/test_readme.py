"""The README's own commands, run as they stand (on a free port), on the embedded model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import contents_of, events_of, sse_of
from tests.processes import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"<!-- run -->\n```(\w+)\n(.*?)```", README, re.DOTALL)
ADDRESS = "127.0.0.1:8888"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `make run` says that it listens."""
    folder = tmp_path_factory.mktemp("readme")
    flags = f"--port=0 --data-dir={folder / 'data'}"
    log = (folder / "log").open("wb")
    with subprocess.Popen(
        ["make", "--no-print-directory", "run", f"ARGS={flags}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    ) as process:
        greeting = "".join(process.stdout.readline() for _ in range(6))
        found = re.search(r"Vision listens on http://(\S+)\n", greeting)
        assert found, greeting
        assert "The key is: chat" in greeting
        assert f"curl -N http://{found[1]}/api/completion/st/generate" in greeting
        yield found[1]
        os.killpg(process.pid, signal.SIGTERM)
    log.close()


@pytest.fixture(scope="module")
def outputs(address: str, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What each block prints, one after the other in one folder."""
    folder = tmp_path_factory.mktemp("reader")
    return [run_block(kind, text.replace(ADDRESS, address), folder) for kind, text in BLOCKS]


def run_block(kind: str, text: str, folder: Path) -> bytes:
    command = {"sh": ["bash", "-eu", "-c"], "python": [sys.executable, "-c"]}[kind]
    return subprocess.run([*command, text], cwd=folder, check=True, capture_output=True).stdout


def test_every_block_that_a_reader_would_run_is_run() -> None:
    assert [kind for kind, _ in BLOCKS] == ["sh", "sh", "sh", "sh", "python"]
    assert README.count("```sh") == 4


def test_the_graph_streams_over_ndjson(outputs: list[bytes]) -> None:
    events = events_of(outputs[0])

    assert set(contents_of(events)) == {"fruit", "sky", "poem"}
    assert events[-1]["statue"] == "[FINISHED]"
    assert events[-1]["status"] == "succeeded"


def test_the_graph_streams_over_sse(outputs: list[bytes]) -> None:
    events = sse_of(outputs[1])

    assert [number for number, _ in events] == [*range(1, len(events) + 1)]
    assert events[-1][1]["statue"] == "[FINISHED]"


def test_a_client_that_was_cut_off_gets_exactly_the_rest_and_then_the_contents(
    outputs: list[bytes],
) -> None:
    *lines, last = outputs[2].splitlines()
    events, answer = [json.loads(line) for line in lines], json.loads(last)

    assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
    assert events[-1]["statue"] == "[FINISHED]"
    contents = {result["id"]: result["content"] for result in answer["data"]}
    assert contents == contents_of(events)


def test_the_cycle_is_printed(outputs: list[bytes]) -> None:
    promised = re.search(r'\{"statusCode":400,"message":"(.*?)",', README)[1]

    answer = json.loads(outputs[3])

    assert (answer["statusCode"], answer["message"]) == (400, promised)


def test_the_websocket_client_prints_text(outputs: list[bytes]) -> None:
    assert outputs[4].strip()
