"""The store of missions on a real Valkey, in the loop of the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from vision.missions.log import MissionLog
from vision.redis_edge import connect

TTL_MS = 60_000


@pytest.fixture
def client(io_loop: IOLoop, redis_url: str) -> Iterator[Redis]:
    redis = connect(redis_url)
    yield redis
    io_loop.run_sync(redis.aclose)


@pytest.fixture
def log(client: Redis) -> MissionLog:
    return MissionLog(client, mission_ttl_ms=TTL_MS)
