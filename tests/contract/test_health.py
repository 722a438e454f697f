"""GET /healthz, /readyz and the page at /."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.contract.conftest import Api
from vision.services import Services

pytestmark = pytest.mark.gen_test


async def lose_redis(services: Services) -> None:
    """From now on no connection to Redis succeeds."""
    pool = services.redis.connection_pool
    pool.connection_kwargs["path"] = "/nowhere"
    for connection in [*pool._available_connections, *pool._in_use_connections]:
        connection.path = "/nowhere"
    await pool.disconnect()


async def test_healthz_answers_as_long_as_the_process_lives(api: Api) -> None:
    response = await api.get("/healthz")

    assert (response.code, json.loads(response.body)) == (200, {"status": "ok"})


async def test_readyz_is_green_when_missions_can_be_accepted_logged_and_run(api: Api) -> None:
    async with asyncio.timeout(5):
        while (response := await api.get("/readyz")).code != 200:
            await asyncio.sleep(0.02)

    checks = json.loads(response.body)["checks"]
    assert checks == {"redis": "ok", "runner": "ok", "model": "ok"}


async def test_readyz_is_red_and_says_why_when_redis_does_not_answer(
    api: Api, services: Services
) -> None:
    await lose_redis(services)

    response = await api.get("/readyz")

    assert response.code == 503
    assert json.loads(response.body)["checks"]["redis"] == "not ready"


async def test_while_redis_is_away_a_mission_is_refused_with_503_and_a_time_to_try_again(
    api: Api, services: Services
) -> None:
    await lose_redis(services)
    prompt = {"id": "1", "mid": "gpt-3.5-turbo", "prompt": "hi"}

    response = await api.post("/api/completion/generate", {"promptList": [prompt]})

    answer = json.loads(response.body)
    assert response.code == answer["statusCode"] == 503
    assert answer["error"]["code"] == "store_unavailable"
    assert int(response.headers["Retry-After"]) > 0


async def test_the_page_may_run_only_its_own_files(api: Api) -> None:
    response = await api.get("/")

    assert response.code == 200
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
