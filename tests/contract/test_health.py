"""GET /healthz, /readyz and the page at /."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.contract.conftest import Api

pytestmark = pytest.mark.gen_test


async def test_healthz_answers_as_long_as_the_process_lives(api: Api) -> None:
    response = await api.get("/healthz")

    assert (response.code, json.loads(response.body)) == (200, {"status": "ok"})


async def test_readyz_is_green_when_missions_can_be_accepted_logged_and_run(api: Api) -> None:
    async with asyncio.timeout(5):
        while (response := await api.get("/readyz")).code != 200:
            await asyncio.sleep(0.02)

    checks = json.loads(response.body)["checks"]
    assert checks == {"redis": "ok", "runner": "ok", "model": "ok"}


async def test_the_page_may_run_only_its_own_files(api: Api) -> None:
    response = await api.get("/")

    assert response.code == 200
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
