"""Whatever a client sends, it gets a 4xx that says what is wrong, and leaves nothing behind."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
import redis

from tests.contract.conftest import KEY, Api, chat
from vision.settings import Settings

POSTS = [
    "/api/completion/single-prompt-request",
    "/api/completion/generate",
    "/api/completion/st/generate",
    "/api/completion/cancel",
]
pytestmark = pytest.mark.gen_test


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b"\xff\xfe",
        b'{"promptList": NaN}',
        b'{"promptList": "\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}",
        b'{"promptList": {}, "model": 7, "missionId": []}',
    ],
)
async def test_a_body_that_is_no_valid_object_is_400(api: Api, path: str, body: bytes) -> None:
    response = await api.post(path, body)

    answer = json.loads(response.body)
    assert response.code == 400
    assert answer["error"]["code"] == "invalid_request"
    assert answer.get("message", answer.get("errorMessage"))


@pytest.mark.parametrize("path", POSTS)
async def test_a_body_over_the_limit_is_413(api: Api, settings: Settings, path: str) -> None:
    response = await api.post(path, b" " * (settings.max_body + 1))

    answer = json.loads(response.body)
    assert response.code == 413
    assert answer["error"]["code"] == "request_too_large"


async def test_a_chunked_body_over_the_limit_is_413(
    api: Api, settings: Settings, base_url: str
) -> None:
    async def chunks() -> Any:
        for _ in range(settings.max_body // 10_000 + 1):
            yield b" " * 10_000

    async with aiohttp.ClientSession(headers=KEY) as session:
        url = f"{base_url}/api/completion/generate"
        async with session.post(url, data=chunks()) as response:
            assert response.status == 413


@pytest.mark.parametrize(
    ("prompt_list", "message"),
    [
        ([], "promptList: must not be empty"),
        ([chat("1", "x", "7")], 'promptList[0].dependenceIdList[0]: no prompt with id "7"'),
        (
            [chat("1", "x"), chat("1", "y")],
            'promptList[1].id: the id "1" is already that of promptList[0]',
        ),
        (
            [chat("1", "x", "1")],
            'promptList[0].dependenceIdList[0]: the prompt "1" depends on itself',
        ),
        (
            [chat("1", "x", "3"), chat("2", "x", "1"), chat("3", "x", "2")],
            "promptList[0].dependenceIdList: the dependencies form a cycle: 1 -> 3 -> 2 -> 1",
        ),
        (
            [chat("1", "x", "2", "2"), chat("2", "y")],
            'promptList[0].dependenceIdList[1]: "2" is named twice',
        ),
        (
            [chat("1", "{{2}}"), chat("2", "y")],
            'promptList[0].prompt: the placeholder {{2}} names no dependency; add "2" to '
            "dependenceIdList, or write \\{{2}} for the text itself",
        ),
        ([{"id": "1", "mid": "gpt-3.5-turbo"}], "promptList[0].prompt: is missing"),
        ([{**chat("1", "x"), "mid": "gpt-9"}], 'promptList[0].mid: no model "gpt-9"; there are: '),
        ([{**chat("1", "x"), "id": 1}], "promptList[0].id: must be a string, not a number"),
        (
            [{**chat("1", "x"), "prompt": ["x"]}],
            "promptList[0].prompt: must be a string, not a list",
        ),
        ([{**chat("1", "x"), "idd": "2"}], "promptList[0].idd: no such field"),
        (["x"], "promptList[0]: must be an object, not a string"),
    ],
)
@pytest.mark.parametrize("path", ["/api/completion/generate", "/api/completion/st/generate"])
async def test_a_graph_that_cannot_run_is_refused_with_the_place_and_the_reason(
    api: Api, path: str, prompt_list: list, message: str
) -> None:
    response = await api.post(path, {"promptList": prompt_list})

    answer = json.loads(response.body)
    assert response.code == answer["statusCode"] == 400
    assert answer["message"].startswith(message)


async def test_a_refusal_leaves_nothing_behind(api: Api, redis_url: str) -> None:
    with redis.Redis(unix_socket_path=redis_url.removeprefix("unix://")) as client:
        for body in ({"promptList": [chat("1", "x", "1")]}, {"promptList": []}, "no"):
            await api.post("/api/completion/generate", body)
            await api.post("/api/completion/st/generate", body)

        assert set(client.keys()) <= {b"vision:queue"}
        assert client.xlen("vision:queue") == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nothing", 404, "unknown_endpoint"),
        ("GET", "/api/completion/generate", 405, "method_not_allowed"),
        ("DELETE", "/api/completion/cancel", 405, "method_not_allowed"),
        ("GET", "/app.py", 404, "unknown_endpoint"),
        ("GET", "/../server.py", 404, "unknown_endpoint"),
        ("GET", "/static/../../server.py", 404, "unknown_endpoint"),
    ],
)
async def test_a_wrong_address_or_method_answers_in_the_documented_shape(
    base_url: str, http_server: object, method: str, path: str, status: int, code: str
) -> None:
    async with aiohttp.ClientSession(headers=KEY) as session:
        async with session.request(method, base_url + path) as response:
            answer = await response.json()

    assert response.status == answer["statusCode"] == status
    assert answer["error"]["code"] == code


async def test_no_answer_carries_a_stack_trace_when_a_part_of_ours_crashes(
    api: Api, monkeypatch: pytest.MonkeyPatch, services: Any
) -> None:
    async def crash(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(type(services.missions), "start", crash)

    response = await api.post("/api/completion/generate", {"promptList": [chat("1", "x")]})

    assert response.code == 500
    assert json.loads(response.body)["error"]["code"] == "internal_error"
    assert b"secret" not in response.body
