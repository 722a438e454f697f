"""Redis dies under a server: who asks is told, and when to try again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import Api
from tests.valkeys import Valkey

pytestmark = pytest.mark.gen_test


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Valkey of this test's own, to be killed."""
    with Valkey(tmp_path / "valkey") as own:
        yield own


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    return valkey.url


async def test_readyz_is_red_and_says_why_when_redis_does_not_answer(
    api: Api, valkey: Valkey
) -> None:
    valkey.kill()

    response = await api.get("/readyz")

    assert response.code == 503
    assert json.loads(response.body)["checks"]["redis"] == "not ready"


async def test_while_redis_is_away_a_mission_is_refused_with_503_and_a_time_to_try_again(
    api: Api, valkey: Valkey
) -> None:
    valkey.kill()
    prompt = {"id": "1", "mid": "gpt-3.5-turbo", "prompt": "hi"}

    response = await api.post("/api/completion/generate", {"promptList": [prompt]})

    answer = json.loads(response.body)
    assert response.code == answer["statusCode"] == 503
    assert answer["error"]["code"] == "store_unavailable"
    assert int(response.headers["Retry-After"]) > 0
