"""认证: `Authorization: Vision <key>` on everything but health and the page."""

from __future__ import annotations

import json

import pytest
from tornado.httpclient import AsyncHTTPClient

from tests.contract.conftest import Api

pytestmark = pytest.mark.gen_test

POSTS = [
    "/api/completion/single-prompt-request",
    "/api/completion/generate",
    "/api/completion/st/generate",
    "/api/completion/cancel",
    "/api/ticket",
]
GETS = ["/api/completion/mission-query", "/api/completion/st/mission", "/api/completion/ws"]


@pytest.mark.parametrize("path", POSTS + GETS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Vision wrong"},
        {"Authorization": "Bearer chat"},
        {"Authorization": "V"},
    ],
)
async def test_without_a_key_of_ours_everything_answers_401(
    http_client: AsyncHTTPClient, http_server: object, base_url: str, path: str, headers: dict
) -> None:
    method = "POST" if path in POSTS else "GET"

    response = await http_client.fetch(
        base_url + path,
        method=method,
        headers=headers,
        body=None,
        raise_error=False,
        allow_nonstandard_methods=True,
    )

    answer = json.loads(response.body)
    assert response.code == 401
    assert response.headers["WWW-Authenticate"] == "Vision"
    assert answer["error"]["code"] == "unauthorized"
    if path.endswith("single-prompt-request"):
        assert (answer["code"], answer["errorMessage"]) == (401, answer["error"]["message"])
    else:
        assert (answer["statusCode"], answer["message"]) == (401, answer["error"]["message"])


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/"])
async def test_health_and_the_page_need_no_key(
    http_client: AsyncHTTPClient, http_server: object, base_url: str, path: str
) -> None:
    response = await http_client.fetch(base_url + path)

    assert response.code == 200


async def test_the_documented_header_is_accepted(api: Api) -> None:
    response = await api.get("/api/completion/mission-query?missionId=x")

    assert response.code == 400


async def test_a_ticket_says_how_long_it_lives_and_is_not_cached(api: Api) -> None:
    response = await api.post("/api/ticket", "")

    answer = json.loads(response.body)
    assert answer["statusCode"] == 200
    assert len(answer["data"]["ticket"]) >= 32
    assert answer["data"]["expiresIn"] == 60
    assert response.headers["Cache-Control"] == "no-store"
