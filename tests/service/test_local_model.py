"""The embedded model answers over plain HTTP, comes back when it dies, and dies with its server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from urllib.parse import urlsplit

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from tests.service.owners import Owner, a_new_process, is_alive, is_gone
from vision.children import DataFolder
from vision.errors import ModelError
from vision.models import local
from vision.models.catalog import LOCAL_MODEL, Endpoint
from vision.models.local import LocalModel

QUESTION = {"messages": [{"role": "user", "content": "Tell me a long story about a fox."}]}

START = """
model = LocalModel(folder)
model.start()
await model.endpoint()
say(model.pid)
"""


@pytest.fixture
def folder(tmp_path):
    taken = DataFolder(tmp_path)
    yield taken
    taken.close()


@pytest.fixture
def model(io_loop, folder):
    async def begin() -> LocalModel:
        running = LocalModel(folder)
        running.start()
        return running

    running = io_loop.run_sync(begin)
    yield running
    io_loop.run_sync(running.stop)


def request(endpoint, path, body, on_chunk=None) -> HTTPRequest:
    return HTTPRequest(
        endpoint.base_url + path,
        method="POST",
        headers={
            "Authorization": f"Bearer {endpoint.api_key}",
            "Content-Type": "application/json",
        },
        body=json.dumps({"model": LOCAL_MODEL, "temperature": 0, **body}),
        streaming_callback=on_chunk,
    )


@pytest.mark.gen_test
async def test_start_returns_before_the_model_is_loaded_and_endpoint_waits_for_it(model):
    assert not model.ready
    endpoint = await model.endpoint()
    assert model.ready
    assert endpoint.base_url.startswith("http://127.0.0.1:")
    assert endpoint.api_key not in repr(endpoint)


@pytest.mark.gen_test
async def test_chat_streams_chunks_with_text_and_usage(model):
    chunks = []
    asked = {**QUESTION, "max_tokens": 24, "stream": True}
    asked["stream_options"] = {"include_usage": True}
    await AsyncHTTPClient().fetch(
        request(await model.endpoint(), "/chat/completions", asked, chunks.append)
    )
    lines = b"".join(chunks).decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    texts = [choice["delta"].get("content") for event in events for choice in event["choices"]]
    assert len("".join(text or "" for text in texts).split()) > 5
    assert len(chunks) > 10
    assert events[-1]["usage"]["completion_tokens"] == 24


@pytest.mark.gen_test
async def test_completion_goes_on_with_a_prompt(model):
    asked = {"prompt": "One, two, three, four,", "max_tokens": 4}
    answer = await AsyncHTTPClient().fetch(request(await model.endpoint(), "/completions", asked))
    body = json.loads(answer.body)
    assert "five" in body["choices"][0]["text"]
    assert body["usage"]["completion_tokens"] == 4


@pytest.mark.gen_test(timeout=60)
async def test_a_closed_connection_ends_its_generation(model):
    """Four endless answers hold every slot; when their clients leave, the next one is served."""
    endpoint = await model.endpoint()
    endless = {**QUESTION, "max_tokens": 1500, "ignore_eos": True, "stream": True}
    clients = [await begin_stream(endpoint, endless) for _ in range(4)]
    for client in clients:
        client.close()
        await client.wait_closed()
    asked = request(endpoint, "/chat/completions", {**QUESTION, "max_tokens": 1})
    # Unended, they would take a minute on an idle machine.
    asked.request_timeout = 25.0
    assert (await AsyncHTTPClient().fetch(asked)).code == 200


async def begin_stream(endpoint, body) -> asyncio.StreamWriter:
    """A raw connection on which the first token has arrived."""
    asked = request(endpoint, "/chat/completions", body)
    where = urlsplit(asked.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    lines = [f"POST {where.path} HTTP/1.1", f"Content-Length: {len(asked.body)}"]
    lines += [f"{name}: {value}" for name, value in asked.headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + asked.body)
    await reader.readuntil(b"data: ")
    return writer


@pytest.mark.gen_test
async def test_a_request_without_the_key_is_refused(model):
    endpoint = Endpoint((await model.endpoint()).base_url, "a-guess")
    with pytest.raises(HTTPClientError) as refusal:
        await AsyncHTTPClient().fetch(request(endpoint, "/chat/completions", QUESTION))
    assert refusal.value.code == 401


@pytest.mark.gen_test
async def test_key_is_not_in_the_command_line(model):
    endpoint = await model.endpoint()
    # -ww: ps cuts at the width of a terminal otherwise, and the path of a checkout may be long.
    shown = await asyncio.create_subprocess_exec(
        "ps", "-ww", "-o", "args=", "-p", str(model.pid), stdout=asyncio.subprocess.PIPE
    )
    arguments, _ = await shown.communicate()
    assert b"local_child.py" in arguments
    assert endpoint.api_key.encode() not in arguments


@pytest.mark.gen_test
async def test_killed_model_comes_back_and_answers(model):
    await model.endpoint()
    killed = model.pid
    os.kill(killed, signal.SIGKILL)
    await a_new_process(model, killed)
    asked = {**QUESTION, "max_tokens": 8}
    endpoint = await model.endpoint()
    answer = await AsyncHTTPClient().fetch(request(endpoint, "/chat/completions", asked))
    assert json.loads(answer.body)["choices"][0]["message"]["content"]


@pytest.mark.gen_test
async def test_stop_ends_a_model_that_is_still_loading(io_loop, folder):
    model = LocalModel(folder)
    model.start()
    await asyncio.sleep(0.1)
    await model.stop()
    assert model.pid is None
    # The lock tells that no process is left: a folder's next child need not wait for it.
    again = LocalModel(folder)
    again.start()
    await again.endpoint()
    await again.stop()


@pytest.mark.gen_test
async def test_model_without_its_file_is_unreachable_and_may_be_tried_again(
    io_loop, folder, monkeypatch
):
    monkeypatch.setattr(local, "ENDPOINT_WITHIN", 0.5)
    empty = folder.path / "empty.gguf"
    empty.touch()
    monkeypatch.setattr(local, "weights", lambda: empty)
    model = LocalModel(folder)
    model.start()
    with pytest.raises(ModelError, match="cannot be used") as failure:
        await model.endpoint()
    assert (failure.value.code, failure.value.retryable) == ("upstream_unreachable", True)
    await model.stop()


def test_model_is_gone_within_two_seconds_of_a_killed_server(tmp_path):
    with Owner(tmp_path, START) as server:
        pid = int(server.hear())
        assert is_alive(pid)
    assert is_gone(pid, within=2.0)


def test_model_of_a_stopped_stdin_ends_without_a_death_signal(tmp_path):
    """Where the kernel has no death signal, the closed pipe is what ends it."""
    leave = "model._supervisor._child._process.stdin.close()"
    with Owner(tmp_path, f"{START}{leave}") as server:
        assert is_gone(int(server.hear()), within=2.0)
