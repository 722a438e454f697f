"""How this server calls its database: whole transactions, bounded in time, with errors of its own.

The law: `write` runs a function in one transaction and returns only after the commit. Where the
database undid a transaction because of others (deadlock, lock wait, a unique row that somebody else
inserted first, SQLite's busy), the function runs anew from its beginning, so it must take nothing
with it from the last time. No other failure is repeated: after a connection was lost nobody knows
whether the commit took place, and only the caller knows how to find out. No exception of a driver
leaves this module, unless it is a bug of ours.

SQLite takes its write lock at the beginning (BEGIN IMMEDIATE), MySQL by `SELECT ... FOR UPDATE`
under READ COMMITTED: what is read after the lock is what was last committed, and no gap between
rows is locked.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    TimeoutError as PoolTimeoutError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from vision.errors import StoreUnavailable

T = TypeVar("T")

# A transaction takes milliseconds; what waits longer than this waits for something that hangs. The
# gateways want their answer within five seconds and repeat, so it need not be shorter.
TRANSACTION_SECONDS: Final = 15.0

# Less than the above: the database should give up first, since it knows what it was waiting for.
LOCK_SECONDS: Final = 5

CONNECT_SECONDS: Final = 5

# Of a process. MySQL allows 151 by default, which is enough for some ten processes; SQLite has one
# writer at a time, and more connections would only wait at its lock.
MYSQL_CONNECTIONS: Final = 12
SQLITE_CONNECTIONS: Final = 4

# MySQL closes connections that are idle for long (eight hours), and so do firewalls (often one).
RECYCLE_SECONDS: Final = 1800

# Before each repetition, times a random factor. Those who collided must not meet again.
PAUSES: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)

# Lock wait timeout, deadlock, duplicate key; a row changed since the snapshot (MariaDB).
_MYSQL_UNDONE: Final = frozenset({1205, 1213, 1062, 1020})
_SQLITE_UNDONE: Final = ("database is locked", "UNIQUE constraint failed", "database is busy")

# Errors of MySQL that are no bug of ours: too many connections, shutting down, killed, read-only,
# disk full, no such host or access.
_MYSQL_AWAY: Final = frozenset(
    {1021, 1040, 1044, 1045, 1049, 1053, 1077, 1129, 1130, 1203, 1290, 1317, 1836, 1927}
)
# From here on the client's own: cannot connect, gone away, lost while asking.
_MYSQL_CLIENT: Final = range(2000, 2100)
_SQLITE_AWAY: Final = (
    *("unable to open", "disk I/O error", "database or disk is full", "readonly database"),
)


class _Undone(StoreUnavailable):
    """The database undid the transaction because of others."""


class Database:
    """An engine and its transactions; it connects at the first call."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)

    async def write(self, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `act` in a transaction and commit; what it returned. Raises StoreUnavailable.

        An exception of `act` undoes everything. `act` may be run several times.
        """
        deadline = time.monotonic() + LOCK_SECONDS
        for pause in PAUSES:
            try:
                return await self._once(act)
            except _Undone:
                if time.monotonic() > deadline:
                    raise  # it has waited for a lock in vain already
                # Jitter between processes, not a secret.
                await asyncio.sleep(pause * random.random())  # noqa: S311
        return await self._once(act)

    async def read(self, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `act` in a transaction that writes nothing and locks nobody out."""
        async with _calls(), self._engine.connect() as connection:
            await connection.execution_options(vision_reads=True)
            return await act(connection)

    async def _once(self, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with _calls(), self._engine.begin() as connection:
            return await act(connection)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[AsyncConnection]:
        """A connection for as long as its user likes: migrations. Raises StoreUnavailable."""
        try:
            async with self._engine.connect() as connection:
                yield connection
        except (DBAPIError, OSError) as error:
            raise _translated(error) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def sqlite_url(folder: Path) -> str:
    """The URL of the database in a data folder."""
    return f"sqlite+aiosqlite:///{folder.resolve() / 'payments.sqlite3'}"


def _engine(url: str) -> AsyncEngine:
    if url.startswith("sqlite"):
        engine = create_async_engine(
            url,
            connect_args={"timeout": LOCK_SECONDS, "async_creator_fn": _open_sqlite},
            pool_size=SQLITE_CONNECTIONS,
            max_overflow=0,
            pool_timeout=TRANSACTION_SECONDS,
        )
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    return create_async_engine(
        url,
        isolation_level="READ COMMITTED",
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_SECONDS,
            "init_command": f"SET SESSION innodb_lock_wait_timeout={LOCK_SECONDS}, "
            "SESSION sql_mode='TRADITIONAL'",
        },
        pool_size=MYSQL_CONNECTIONS,
        max_overflow=0,
        pool_timeout=TRANSACTION_SECONDS,
        pool_pre_ping=True,
        pool_recycle=RECYCLE_SECONDS,
    )


async def _open_sqlite(path: str, **options: Any) -> aiosqlite.Connection:
    connection = aiosqlite.connect(path, **options)
    # It has no public name (SQLAlchemy's own opening reaches for it, too): a connection that was
    # forgotten must not keep the process from ending.
    thread = connection._thread  # noqa: SLF001
    thread.daemon = True
    try:
        return await connection
    except sqlite3.Error:
        # After a failure the thread says goodbye to the loop, which may be closed by then: a
        # command that found no database ends at once. It is on its way; the wait is short.
        await asyncio.to_thread(thread.join)
        raise


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    # Python's driver begins transactions by guessing from the statement; we say it ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    # WAL lets readers go on beside the writer; FULL makes a commit survive a power cut, and what
    # was acknowledged to a gateway must.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("vision_reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@asynccontextmanager
async def _calls() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TRANSACTION_SECONDS):
            yield
    except (DBAPIError, PoolTimeoutError, OSError) as error:  # TimeoutError is an OSError
        raise _translated(error) from error


def _translated(error: Exception) -> Exception:
    """The error to raise in place of a driver's; itself when it is a bug of ours."""
    origin: Any = error.orig if isinstance(error, DBAPIError) else error
    number = origin.args[0] if origin is not None and origin.args else None
    text = str(origin)
    away = f"the payment store does not answer ({type(origin).__name__})"
    if number in _MYSQL_UNDONE or text.startswith(_SQLITE_UNDONE):
        return _Undone("the payment store is busy; try again")
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return StoreUnavailable(away)
    if number in _MYSQL_AWAY or (isinstance(number, int) and number in _MYSQL_CLIENT):
        return StoreUnavailable(away)
    if any(part in text for part in _SQLITE_AWAY) or isinstance(error, InterfaceError):
        return StoreUnavailable(away)
    return error
