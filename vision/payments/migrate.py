"""The schema of the database: brought up to date, or found to be so.

The law: a server runs on exactly the schema that it was written for. Embedded, it migrates at its
start; otherwise `python -m vision migrate` does, and the server only checks, and refuses an older
or a newer schema in one line. Two migrations at once are one after the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from vision.errors import StoreUnavailable
from vision.payments.database import Database
from vision.payments.errors import SchemaMismatch

SCRIPTS: Final = Path(__file__).parents[2] / "sql"

# Creating all tables takes a second or two; one that is altered may be large.
WAIT_SECONDS: Final = 60


async def upgrade(database: Database) -> None:
    """Bring the schema up to date. Raises SchemaMismatch when it is newer, StoreUnavailable."""
    async with database.connected() as connection:
        await connection.run_sync(_upgrade)
        await connection.commit()


async def check(database: Database) -> None:
    """Whether the schema is this server's. Raises SchemaMismatch and StoreUnavailable."""
    async with database.connected() as connection:
        found = await connection.run_sync(_found)
    scripts = ScriptDirectory(str(SCRIPTS))
    ours = scripts.get_current_head()
    if found is None:
        raise SchemaMismatch("database-url: it has no tables yet; run: python -m vision migrate")
    _refuse_newer(found, scripts)
    if found != ours:
        older = f"database-url: its schema is {found}, older than this server's {ours}"
        raise SchemaMismatch(f"{older}; run: python -m vision migrate")


def _upgrade(connection: Connection) -> None:
    # SQLite's transaction has the write lock already; MySQL ends transactions at every change.
    if connection.dialect.name != "sqlite":
        waited = connection.execute(text(f"SELECT GET_LOCK('vision_migrate', {WAIT_SECONDS})"))
        if not waited.scalar_one():
            raise StoreUnavailable("another migration has been running for a minute; try again")
    found = _found(connection)
    if found is not None:
        _refuse_newer(found, ScriptDirectory(str(SCRIPTS)))
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if connection.dialect.name != "sqlite":
        connection.execute(text("SELECT RELEASE_LOCK('vision_migrate')"))


def _found(connection: Connection) -> str | None:
    """The revision of the schema that is there."""
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(found: str, scripts: ScriptDirectory) -> None:
    if found not in {revision.revision for revision in scripts.walk_revisions()}:
        ours = scripts.get_current_head()
        newer = f"database-url: its schema is {found}, newer than this server's {ours}"
        raise SchemaMismatch(f"{newer}; start the server that belongs to it")
