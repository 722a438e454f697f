"""单个 prompt 请求接口: POST /api/completion/single-prompt-request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.contract.conftest import KEY, Api
from tests.upstream import NEVER, Reply, ScriptedUpstream

PATH = "/api/completion/single-prompt-request"
pytestmark = pytest.mark.gen_test


async def ask(api: Api, model: str, **params: Any) -> tuple[int, dict[str, Any]]:
    response = await api.post(PATH, {"model": model, "params": params})
    return response.code, json.loads(response.body)


def message(content: str, role: str = "user") -> dict[str, str]:
    return {"role": role, "content": content}


async def test_a_completion_model_answers_in_the_documented_shape(api: Api) -> None:
    status, answer = await ask(api, "text-davinci-003", prompt="hello")

    assert status == 200
    assert list(answer) == ["code", "data", "errorMessage"]
    assert (answer["code"], answer["errorMessage"]) == (200, "")
    assert answer["data"]["result"] == {"role": "assistant", "content": "echo: hello"}


async def test_a_chat_model_answers_in_the_documented_shape(api: Api) -> None:
    messages = [message("be brief", "system"), message("hi"), message("yes?", "assistant")]

    status, answer = await ask(api, "gpt-3.5-turbo", messages=[*messages, message("hello")])

    assert status == 200
    assert answer["data"]["result"] == {"role": "assistant", "content": "echo: hello"}


async def test_every_parameter_of_a_completion_model_reaches_the_upstream(
    api: Api, upstream: ScriptedUpstream
) -> None:
    params = {
        "prompt": "hello",
        "suffix": "the end",
        "max_tokens": 5,
        "temperature": 0.5,
        "presence_penalty": 1,
        "frequency_penalty": -1,
    }

    status, _ = await ask(api, "text-davinci-002", n=1, **params)

    assert status == 200
    sent = upstream.requests[0].body
    assert {name: sent.get(name) for name in params} == params
    assert sent["model"] == "scripted-text"


async def test_every_parameter_of_a_chat_model_reaches_the_upstream(
    api: Api, upstream: ScriptedUpstream
) -> None:
    params = {
        "messages": [message("hello")],
        "max_tokens": 5,
        "top_p": 0.5,
        "presence_penalty": 1,
        "frequency_penalty": -1,
    }

    status, _ = await ask(api, "gpt-3.5-turbo", **params)

    assert status == 200
    sent = upstream.requests[0].body
    assert {name: sent.get(name) for name in params} == params


async def test_a_list_of_prompts_gives_a_result_for_each(api: Api) -> None:
    _, answer = await ask(api, "text-davinci-003", prompt=["one", "two"])

    contents = [result["content"] for result in answer["data"]["results"]]
    assert contents == ["echo: one", "echo: two"]
    assert answer["data"]["result"]["content"] == "echo: one"


async def test_a_chat_model_gives_n_results(api: Api) -> None:
    _, answer = await ask(api, "gpt-3.5-turbo", messages=[message("x")], n=3)

    assert len(answer["data"]["results"]) == 3
    assert answer["data"]["result"] == answer["data"]["results"][0]


@pytest.mark.parametrize("model", ["gpt-3.5-turbo", "text-davinci-003"])
async def test_best_of_keeps_the_most_probable_candidate(
    api: Api, upstream: ScriptedUpstream, model: str
) -> None:
    upstream.on("pick", Reply(texts=["bad", "best", "good"], logprobs=(-3.0, -0.1, -1.0)))
    source = {"messages": [message("pick")]} if model.startswith("gpt") else {"prompt": "pick"}

    _, answer = await ask(api, model, best_of=3, **source)

    assert answer["data"]["result"]["content"] == "best"
    assert "results" not in answer["data"]


@pytest.mark.parametrize(
    ("model", "params", "path", "words"),
    [
        ("gpt-3.5-turbo", {"messages": [message("x")], "suffix": "s"}, "params.suffix", "chat"),
        ("gpt-3.5-turbo", {"prompt": "x"}, "params.prompt", "messages"),
        ("gpt-3.5-turbo", {}, "params.messages", "needs"),
        ("text-davinci-003", {}, "params.prompt", "needs"),
        ("text-davinci-003", {"prompt": "x", "n": 2}, "params.n", "1"),
        ("text-davinci-003", {"prompt": []}, "params.prompt", "empty"),
        (
            "text-davinci-003",
            {"prompt": "x", "temperature": 1, "top_p": 1},
            "params.top_p",
            "together",
        ),
        ("text-davinci-003", {"prompt": "x", "temperature": 3}, "params.temperature", "at most 2"),
        ("text-davinci-003", {"prompt": "x", "top_p": -1}, "params.top_p", "at least 0"),
        ("text-davinci-003", {"prompt": "x", "best_of": 0}, "params.best_of", "at least 1"),
        (
            "gpt-3.5-turbo",
            {"messages": [message("x")], "n": 3, "best_of": 2},
            "params.best_of",
            "n",
        ),
        ("gpt-3.5-turbo", {"messages": [message("x", "boss")]}, "params.messages[0].role", "user"),
        (
            "gpt-3.5-turbo",
            {"messages": [{"role": "user"}]},
            "params.messages[0].content",
            "missing",
        ),
        ("text-davinci-003", {"prompt": "x", "max_token": 1}, "params.max_token", "no such field"),
        ("text-davinci-003", {"prompt": 7}, "params.prompt", "string"),
        ("gpt-99", {"prompt": "x"}, "model", "gpt-3.5-turbo, text-davinci-002"),
        ("text-davinci-003", {"prompt": "x", "onError": "skip"}, "params.onError", "graph"),
    ],
)
async def test_a_wrong_parameter_is_refused_with_its_path(
    api: Api, upstream: ScriptedUpstream, model: str, params: dict, path: str, words: str
) -> None:
    status, answer = await ask(api, model, **params)

    assert status == answer["code"] == 400
    assert answer["errorMessage"].startswith(f"{path}: ")
    assert words in answer["errorMessage"]
    assert answer["error"]["path"] == path
    assert upstream.requests == []


async def test_an_upstream_that_fails_once_is_asked_again(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("x", Reply(status=500), Reply(tokens=["fine"]))

    status, answer = await ask(api, "text-davinci-003", prompt="x")

    assert (status, answer["data"]["result"]["content"]) == (200, "fine")


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply(status=400, error={"message": "too long"}), 400, "upstream_rejected"),
        (Reply(status=401, error={"message": "bad key"}), 502, "upstream_rejected"),
        (Reply(status=429, headers={"Retry-After": "7"}), 429, "upstream_rate_limited"),
        (Reply(status=500), 502, "upstream_error"),
        (Reply(body=b"<html>"), 502, "upstream_garbled"),
        (Reply(before_headers=NEVER), 504, "upstream_timeout"),
    ],
)
async def test_an_upstream_that_fails_gives_a_clear_error(
    api: Api, upstream: ScriptedUpstream, reply: Reply, status: int, code: str
) -> None:
    upstream.on("x", reply)

    found, answer = await ask(api, "text-davinci-003", prompt="x", retries=0, timeout=0.3)

    assert found == answer["code"] == status
    assert answer["error"]["code"] == code
    assert answer["errorMessage"] == answer["error"]["message"]


async def test_a_client_that_hangs_up_ends_the_model_call(
    api: Api, upstream: ScriptedUpstream, base_url: str
) -> None:
    upstream.on("slow", Reply(before_headers=NEVER))
    body = {"model": "text-davinci-003", "params": {"prompt": "slow"}}

    async with aiohttp.ClientSession(headers=KEY) as session:
        request = asyncio.create_task(session.post(base_url + PATH, json=body))
        await upstream.wait_requests(1)
        request.cancel()
        await asyncio.wait({request})

        await upstream.wait_closed(1, timeout=1)
