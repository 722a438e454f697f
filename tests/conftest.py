"""What tests share: real parts, started once where that is safe, empty for each test.

The law: a test that needs a service gets its own, on free ports and in a temporary folder, or skips
loudly on a machine without it; in CI a missing service is a failure. A callback of ours that holds
the event loop fails the test in which it ran (asyncio's debug mode, which CI turns on).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from hypothesis import settings
from redis.asyncio import Redis
from tornado.ioloop import IOLoop

from vision.payments.sandbox_callbacks import keep_keys
from vision.payments.service import open_database
from vision.redis_edge import connect
from vision.valkey import binary

# A loaded machine makes any single example slow; what must be fast has a test that says so.
settings.register_profile("vision", deadline=None)
settings.load_profile("vision")

# How long a callback of ours may hold the loop. Debug mode keeps a stack for each handle, which
# makes every step several times longer and a garbage collection in a large test some 200 ms; what
# we look for (a blocking call, a quadratic loop) takes longer than this even so.
SLOW_CALLBACK_SECONDS = 0.5

OURS = [f"{Path(__file__).parents[1]}/{name}/" for name in ("vision", "handlers")]


def require(program: str) -> str:
    """The path of a program, or a skip; in CI a failure."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed; install it to run this test"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return path


class _SlowCallbacks(logging.Handler):
    """Collects asyncio's complaints about callbacks of ours."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if " took " in message and any(folder in message for folder in OURS):
            self.seen.append(message)


@pytest.fixture(autouse=True)
def _no_slow_callbacks() -> Iterator[None]:
    handler = _SlowCallbacks()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert not handler.seen, "a callback of ours held the event loop"


@pytest.fixture
def io_loop(io_loop: IOLoop) -> Iterator[IOLoop]:
    """pytest-tornado's loop, which also ends the generators that are left in it."""
    io_loop.asyncio_loop.slow_callback_duration = SLOW_CALLBACK_SECONDS
    yield io_loop
    io_loop.run_sync(io_loop.asyncio_loop.shutdown_asyncgens)


@pytest.fixture(scope="session")
def shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey for all tests of this run."""
    folder = tmp_path_factory.mktemp("valkey")
    socket = folder / "socket"
    command = [str(binary()), "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "no", "--loglevel", "warning"]
    process = subprocess.Popen(command)
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        _until_answers(client)
        yield f"unix://{socket}"
    finally:
        client.close()
        process.terminate()
        process.wait(10)


def _until_answers(client: redis.Redis) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


@pytest.fixture
def redis_url(shared_valkey: str) -> Iterator[str]:
    """The URL of a Valkey that is empty."""
    with redis.Redis(unix_socket_path=shared_valkey.removeprefix("unix://")) as client:
        client.flushall()
        yield shared_valkey


@pytest.fixture
def client(io_loop: IOLoop, redis_url: str) -> Iterator[Redis]:
    """Redis as the server reaches it."""
    client = connect(redis_url)
    yield client
    io_loop.run_sync(client.aclose)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server makes at its first start and keeps: tables and the sandbox's keys."""
    folder = tmp_path_factory.mktemp("made once")

    async def make() -> None:
        database = await open_database("", folder, production=False)
        await database.close()

    # In a thread of its own: `asyncio.run` would take the loop of the test that asked first away.
    with ThreadPoolExecutor(1) as aside:
        aside.submit(asyncio.run, make()).result()
    keep_keys(folder)
    return folder


@pytest.fixture
def data_dir(tmp_path: Path, made_once: Path) -> Path:
    """A data folder that is nobody else's, after its first start: that one takes half a second."""
    return shutil.copytree(made_once, tmp_path / "data")
