"""Each test of payments runs on SQLite and on MariaDB, in a database of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from tests.conftest import require
from tests.mariadb import MariaDB
from tests.shop import Shop


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """One server for all tests of this run."""
    server = MariaDB(require("mariadbd"), tmp_path_factory.mktemp("mariadb"))
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "mariadb":
        server: MariaDB = request.getfixturevalue("mariadb")
        return server.fresh()
    return f"sqlite+aiosqlite:///{tmp_path / 'payments.sqlite3'}"


@pytest.fixture
def shop(io_loop: IOLoop, database_url: str) -> Iterator[Shop]:
    """All parts, on tables that are there, with products in them."""
    opened = Shop(database_url)
    io_loop.run_sync(opened.open)
    yield opened
    io_loop.run_sync(opened.close)
