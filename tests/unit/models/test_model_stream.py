"""Streams from a scripted upstream over real sockets: what arrives, and what happens when not."""

from __future__ import annotations

import asyncio

import pytest
from asking import KEY, PATIENT, Scene, scene_at, text_of

from tests.upstream import Reply, echo
from vision.errors import ModelError
from vision.models.call import Usage
from vision.models.catalog import Endpoint, default_catalog
from vision.models.upstream import Models

KINDS = pytest.mark.parametrize("model", ["chatty", "writer"])


@KINDS
@pytest.mark.gen_test
async def test_a_stream_brings_every_token_the_finish_reason_and_the_usage(io_loop, there, model):
    chunks = await there.collect(there.call("one two", model))
    assert [chunk.text for chunk in chunks if chunk.text] == echo("one two")
    assert [c.finish_reason for c in chunks if c.finish_reason] == ["stop"]
    assert [c.usage for c in chunks if c.usage] == [Usage(2, 3, 5)]


@KINDS
@pytest.mark.gen_test
async def test_the_request_is_the_call_as_it_was_made(io_loop, there, model):
    await there.collect(there.call("hi", model, max_tokens=5, stop=["x"], seed=3))
    (request,) = there.upstream.requests
    source = {"messages": [{"role": "user", "content": "hi"}]}
    if model == "writer":
        source = {"prompt": "hi"}
    assert request.body == {
        "model": there.catalog.route(model).name,
        **source,
        "max_tokens": 5,
        "stop": ["x"],
        "seed": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.gen_test
async def test_an_upstream_gets_its_own_key_or_none_and_nobody_elses(
    io_loop, there, monkeypatch, key
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-someone-else")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-of-someone-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-someone-else")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-of-someone-else")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-of-someone-else")
    scene = scene_at(there.upstream.base_url, api_key=key)
    await scene.collect(scene.call("hi"))
    await scene.models.close()
    sent = there.upstream.requests[0].headers
    assert sent.get("authorization") == (key and f"Bearer {key}")
    assert "someone-else" not in str(sent)


@pytest.mark.gen_test
async def test_no_proxy_stands_between_us_and_a_loopback_address(io_loop, there, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert text_of(await there.collect(there.call("hi"))) == "echo: hi"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.gen_test
async def test_characters_cut_across_reads_arrive_whole(io_loop, there, size):
    tokens = ["你", "好，", "世界🌍", "é\n", "\u2028end"]
    there.upstream.on("cut", Reply(tokens=tokens, split=size, newline="\r\n"))
    chunks = await there.collect(there.call("cut"))
    assert text_of(chunks) == "".join(tokens)


@pytest.mark.gen_test
async def test_tokens_that_arrive_together_come_in_one_list(io_loop, there):
    there.upstream.on("many", Reply(tokens=50, tokens_per_write=100))
    lists = [arrived async for arrived in there.models.stream(there.call("many"), PATIENT)]
    assert len(lists) < 10
    assert max(map(len, lists)) > 40


@pytest.mark.parametrize(
    "writes",
    [
        [b'data: {"choices":[]}\n\n', b'data: {"choices":[{"delta":{"content":"ok"}}]}\n\n'],
        [b'data: {"choices":null,"usage":null}\n\ndata: {"choices":[{"text":"ok"}]}\n\n'],
        [b": ping\n\n", b'data: {"choices":[{"delta":null,"text":"ok","index":null}]}\n\n'],
        [
            b'data: {"choices":[{"delta":{"role":"assistant","reasoning_content":"hm"}}]}\n\n'
            b'data: {"choices":[{"delta":{"content":"ok","tool_calls":null}}],"x":[1]}\n\n'
        ],
        [b'\xef\xbb\xbfdata:{"choices":[{"delta":{"refusal":"ok"}}]}\r\r'],
    ],
)
@pytest.mark.gen_test
async def test_harmless_oddities_of_servers_are_tolerated(io_loop, there, writes):
    there.upstream.on("odd", Reply(writes=[*writes, b"data: [DONE]\n\n"]))
    assert text_of(await there.collect(there.call("odd"))) == "ok"


@pytest.mark.parametrize("reply", [Reply(done=False), Reply(finish_reason=None)])
@pytest.mark.gen_test
async def test_either_end_mark_is_enough(io_loop, there, reply):
    there.upstream.on("end", reply)
    assert text_of(await there.collect(there.call("end"))) == "echo: end"


@pytest.mark.gen_test
async def test_a_server_that_does_not_stream_gives_one_chunk(io_loop, there):
    body = b'{"choices":[{"message":{"content":"all"},"finish_reason":"length"}]}'
    there.upstream.on("whole", Reply(body=body, headers={"Content-Type": "application/json"}))
    (chunk,) = await there.collect(there.call("whole"))
    assert (chunk.text, chunk.finish_reason) == ("all", "length")


@pytest.mark.gen_test
async def test_a_finished_stream_gives_its_connection_back(io_loop, there):
    for _ in range(3):
        await there.collect(there.call("again"))
    assert there.upstream.connections == 1


@pytest.mark.gen_test
async def test_the_local_model_is_asked_for_its_address_at_each_call(io_loop, there):
    keys = iter(["first", "first", "second"])

    async def local():
        return Endpoint(there.upstream.base_url, next(keys))

    catalog = default_catalog(None)
    scene = Scene(there.upstream, catalog, Models(catalog, local))
    for _ in range(3):
        await scene.collect(scene.call("hi", "gpt-3.5-turbo"))
    await scene.models.close()
    sent = [request.headers["authorization"] for request in there.upstream.requests]
    assert sent == ["Bearer first", "Bearer first", "Bearer second"]
    assert there.upstream.connections == 2


@pytest.mark.parametrize(
    ("reply", "verdict", "words"),
    [
        (Reply(status=429, error={"message": "slow down"}), "upstream_rate_limited, again", "slow"),
        (
            Reply(status=429, error={"message": "pay", "code": "insufficient_quota"}),
            "upstream_rate_limited, final",
            "pay",
        ),
        (Reply(status=500, body=b"<h1>oops</h1>"), "upstream_error, again", "oops"),
        (Reply(status=503), "upstream_error, again", "scripted"),
        (Reply(status=408), "upstream_error, again", ""),
        (Reply(status=409), "upstream_error, again", ""),
        (Reply(status=400, error={"message": "no"}), "upstream_rejected, final", "400: no"),
        (
            Reply(status=422, body=b'{"detail":"bad field"}'),
            "upstream_rejected, final",
            "bad field",
        ),
        (Reply(status=404, body=b'{"error":"no model"}'), "upstream_rejected, final", "no model"),
        (Reply(stop_after=1), "upstream_cut_off, again", "broke off"),
        (Reply(stop_after=1, cut=True), "upstream_cut_off, again", "broke off"),
        (
            Reply(writes=[b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"cho']),
            "upstream_cut_off, again",
            "broke off",
        ),
        (Reply(writes=[b"data: {oops\n\n"]), "upstream_garbled, final", "not JSON"),
        (Reply(writes=[b"data: [1]\n\n"]), "upstream_garbled, final", "not an OpenAI one"),
        (Reply(writes=[b'data: {"choices":[{"text":"\xff"}]}\n\n']), "upstream_garbled, final", ""),
        (Reply(writes=[b"<html>"]), "upstream_garbled, final", "no events"),
        (Reply(writes=[b"data: " + b"x" * (1 << 21)]), "upstream_garbled, final", "more than"),
        (
            Reply(body=b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}),
            "upstream_garbled, final",
            "not JSON",
        ),
        (
            Reply(error={"message": "context full", "code": 500}, stop_after=1),
            "upstream_error, again",
            "context full",
        ),
        (Reply(error={"message": "too long", "code": 400}), "upstream_rejected, final", "too long"),
        (
            Reply(writes=[b'event: error\ndata: {"message":"lost"}\n\n']),
            "upstream_error, again",
            "lost",
        ),
        (
            Reply(writes=[b'data: {"error":"plain words"}\n\n']),
            "upstream_error, again",
            "plain words",
        ),
    ],
)
@pytest.mark.gen_test
async def test_every_failure_has_its_code_and_the_upstreams_words(
    io_loop, there, reply, verdict, words
):
    there.upstream.on("fail", reply)
    error = await there.failure_of(there.call("fail"))
    assert f"{error.code}, {'again' if error.retryable else 'final'}" == verdict
    assert words in error.message
    assert there.slots.running == 0


@pytest.mark.gen_test
async def test_what_came_before_a_failure_in_the_same_read_is_given(io_loop, there):
    there.upstream.on("late", Reply(tokens=3, tokens_per_write=9, error={"message": "x"}))
    stream = there.models.stream(there.call("late"), PATIENT)
    first = await anext(stream)
    with pytest.raises(ModelError):
        await anext(stream)
    assert text_of(first) == "word0 word1 word2 "


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "30", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "soon"}, None),
    ],
)
@pytest.mark.gen_test
async def test_the_upstreams_wish_to_wait_is_kept(io_loop, there, headers, wish):
    there.upstream.on("wait", Reply(status=429, headers=headers))
    error = await there.failure_of(there.call("wait"))
    assert (error.status, error.retry_after) == (429, wish)


@pytest.mark.gen_test
async def test_a_key_that_the_upstream_repeats_is_masked_and_its_words_are_bounded(io_loop, there):
    there.upstream.on("key", Reply(status=401, error={"message": f"bad key {KEY} " + "x" * 5000}))
    error = await there.failure_of(there.call("key"))
    assert KEY not in error.message
    assert "bad key ***" in error.message
    assert len(error.message) < 600


@pytest.mark.gen_test
async def test_a_refused_connection_is_unreachable(io_loop):
    scene = scene_at("http://127.0.0.1:1/v1")
    error = await scene.failure_of(scene.call("x"))
    await scene.models.close()
    assert (error.code, error.retryable) == ("upstream_unreachable", True)
    assert "there cannot be reached" in error.message


@pytest.mark.gen_test
async def test_a_dropped_connection_before_the_answer_is_unreachable(io_loop):
    async def drop(reader, writer):
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(drop, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    scene = scene_at(f"http://127.0.0.1:{port}/v1")
    error = await scene.failure_of(scene.call("x"))
    await scene.models.close()
    server.close()
    assert (error.code, error.retryable) == ("upstream_unreachable", True)


@pytest.mark.gen_test
async def test_a_server_that_does_not_speak_http_is_garbled(io_loop):
    async def babble(reader, writer):
        await reader.read(10)
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    scene = scene_at(f"http://127.0.0.1:{port}/v1")
    error = await scene.failure_of(scene.call("x"))
    await scene.models.close()
    server.close()
    assert error.code == "upstream_garbled"
