"""The store of missions on a real Valkey, and whole processes on it, in the loop of the test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from tests.contract.conftest import MODELS
from tests.unit.missions.team import Team
from tests.unit.missions.writing import Published
from tests.upstream import ScriptedUpstream
from vision.missions import runner
from vision.missions.log import MissionLog
from vision.missions.writer import LogWriter
from vision.settings import Settings

TTL_MS = 60_000


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


@pytest.fixture
def upstream(io_loop: IOLoop) -> Iterator[ScriptedUpstream]:
    """The language model: a scripted server on a real socket."""
    scripted = ScriptedUpstream()

    async def start() -> None:
        scripted.start()

    io_loop.run_sync(start)
    yield scripted
    io_loop.run_sync(scripted.stop)


@pytest.fixture
def team(
    io_loop: IOLoop,
    redis_url: str,
    tmp_path: Path,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Team]:
    """Whole processes, none of them started yet, on one Redis and one upstream.

    They look into the queue for a short time only: a look for new missions keeps the one for
    abandoned missions waiting, and the end of a process too.
    """
    monkeypatch.setattr(runner, "TAKE_WAIT_MS", 50)
    models = tmp_path / "models.toml"
    models.write_text(MODELS.format(base_url=upstream.base_url))
    settings = Settings(data_dir=tmp_path / "data", redis_url=redis_url, models=models)
    team = Team(settings)
    yield team
    io_loop.run_sync(team.close)
