"""The scripted upstream does what its script says, in a process of its own too."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.script import Reply, directive


@pytest.fixture
def process():
    command = [sys.executable, "-m", "tests.upstream", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        yield f"http://127.0.0.1:{int(running.stdout.readline())}"
        running.terminate()


def post(url, prompt, **fields):
    body = json.dumps({"model": "x", "prompt": prompt, **fields}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body)
    with urllib.request.urlopen(request, timeout=5) as response:
        return response.read().decode()


def test_a_prompt_scripts_a_server_in_another_process(process):
    began = time.monotonic()
    answer = post(process, "go [[tokens=3 delay=0.1]]", stream=True)
    assert time.monotonic() - began >= 0.3
    assert answer.count("word") == 3
    assert answer.endswith("data: [DONE]\n\n")
    assert json.loads(post(process, "two words"))["choices"][0]["text"] == "echo: two words"


def test_it_fails_as_often_as_the_prompt_says_and_tells_what_it_has_seen(process):
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError, match="503"):
            post(process, "x [[fail=2]]")
    assert json.loads(post(process, "x [[fail=2]]"))["choices"][0]["text"] == "echo: x"
    with urllib.request.urlopen(f"{process}/seen", timeout=5) as response:
        seen = json.load(response)
    expected = {"prompts": ["x [[fail=2]]"] * 3, "closed": [], "running": 0, "mostRunning": 1}
    assert seen == expected


def test_a_directive_sets_the_fields_of_a_reply():
    fields = directive("a [[status=429 retry_after=2 before_headers=never cut=true]] b")
    assert Reply(**fields) == Reply(
        status=429, headers={"Retry-After": "2"}, before_headers=float("inf"), cut=True
    )
    with pytest.raises(ValueError, match="no directive"):
        directive("[[dealy=1]]")
