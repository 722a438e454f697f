"""The store of missions on a real Valkey, in the loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from tests.unit.missions.writing import Published
from vision.missions.log import MissionLog
from vision.missions.writer import LogWriter
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


@pytest.fixture
def published(redis_url: str) -> Iterator[Published]:
    watching = Published(redis_url)
    yield watching
    watching.close()


@pytest.fixture
def writer(io_loop: IOLoop, log: MissionLog, published: Published) -> Iterator[LogWriter]:
    """A writer that runs."""
    writer = LogWriter(log, published)

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(writer.run())

    async def stop() -> None:
        assert not running.done()
        running.cancel()
        await asyncio.wait({running})

    running = io_loop.run_sync(start)
    yield writer
    io_loop.run_sync(stop)
