"""A server runs on exactly its own schema, and migrations may be cut off and may meet."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from tornado.ioloop import IOLoop

from tests.processes import ROOT
from tests.shop import Shop
from vision.errors import StoreUnavailable
from vision.payments import migrate, product_store, tables
from vision.payments.database import Database
from vision.payments.errors import SchemaMismatch
from vision.payments.service import open_database


@pytest.fixture
def database(io_loop: IOLoop, database_url: str) -> Iterator[Database]:
    """A database without tables."""
    opened = Database(database_url)
    yield opened
    io_loop.run_sync(opened.close)


async def execute(database: Database, statement: str) -> None:
    await database.write(lambda connection: connection.execute(text(statement)))


@pytest.mark.gen_test
async def test_the_migrations_lead_to_the_tables_that_the_server_uses(database: Database) -> None:
    await migrate.upgrade(database)

    def differences(connection: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, tables.metadata))

    async with database.connected() as connection:
        assert await connection.run_sync(differences) == []


@pytest.mark.gen_test
async def test_migrating_again_changes_nothing(database: Database) -> None:
    await migrate.upgrade(database)
    await migrate.upgrade(database)

    await migrate.check(database)


@pytest.mark.gen_test
async def test_migrations_at_once_are_one_after_the_other(
    database: Database, database_url: str
) -> None:
    others = [Database(database_url) for _ in range(4)]

    await asyncio.gather(*(migrate.upgrade(each) for each in (database, *others)))

    await migrate.check(database)
    for each in others:
        await each.close()


@pytest.mark.gen_test
async def test_a_migration_that_was_cut_off_is_finished_by_the_next(database: Database) -> None:
    await migrate.upgrade(database)
    await execute(database, "DELETE FROM alembic_version")
    await execute(database, "DROP TABLE locks")
    await execute(
        database,
        "DROP INDEX orders_to_check"
        + (" ON orders" if database._engine.dialect.name != "sqlite" else ""),
    )

    await migrate.upgrade(database)

    await migrate.check(database)
    await execute(database, "INSERT INTO locks VALUES ('a', 'b', 1)")


@pytest.mark.gen_test
async def test_a_server_refuses_a_database_without_tables(database: Database) -> None:
    with pytest.raises(SchemaMismatch) as refused:
        await migrate.check(database)

    expected = "database-url: it has no tables yet; run: python -m vision migrate"
    assert refused.value.message == expected


@pytest.mark.gen_test
async def test_a_newer_schema_is_refused_by_the_server_and_by_migrate(database: Database) -> None:
    await migrate.upgrade(database)
    await execute(database, "UPDATE alembic_version SET version_num = '9999'")

    for act in (migrate.check, migrate.upgrade):
        with pytest.raises(SchemaMismatch, match="its schema is 9999, newer than this server's"):
            await act(database)


@pytest.mark.gen_test
async def test_only_a_server_that_is_not_in_production_has_sample_products(
    tmp_path: Path,
) -> None:
    for name, production in (("trying", False), ("earnest", True)):
        (tmp_path / name).mkdir()
        database = await open_database("", tmp_path / name, production=production)
        products = await database.read(product_store.list_products)
        await database.close()
        expected = [] if production else ["demo-day", "demo-month", "demo-tokens"]
        assert [product.product_id for product in products] == expected


@pytest.mark.gen_test
async def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    for url in (
        "mysql+aiomysql://root@127.0.0.1:1/none",
        f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/file",
    ):
        database = Database(url)
        with pytest.raises(StoreUnavailable, match="the payment store does not answer"):
            await migrate.check(database)
        with pytest.raises(StoreUnavailable):
            await database.read(product_store.list_products)
        await database.close()


@pytest.mark.gen_test
async def test_what_the_url_says_of_a_file_reaches_sqlite(tmp_path: Path) -> None:
    file = tmp_path / "payments.sqlite3"
    whole = Database(f"sqlite+aiosqlite:///{file}")
    await migrate.upgrade(whole)
    await whole.close()

    read_only = Database(f"sqlite+aiosqlite:///file:{file}?mode=ro&uri=true")
    await read_only.read(product_store.list_products)
    with pytest.raises(StoreUnavailable):
        await execute(read_only, "DELETE FROM orders")
    await read_only.close()


@pytest.mark.gen_test
async def test_a_file_that_cannot_be_opened_leaves_no_thread_to_the_closing_loop(
    tmp_path: Path,
) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/file")
    before = set(threading.enumerate())

    for _ in range(20):
        with pytest.raises(StoreUnavailable):
            await migrate.check(database)
        left = {each.name for each in set(threading.enumerate()) - before}
        assert not [name for name in left if "connection_worker" in name]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vision", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


GOODS = """
[products.month]
product_line = "line"
name = "A month"
price = 100
total_price = 1200
days = 30

[promo_codes.SPRING]
kind = "percentage"
value = 20
ends_at = 2024-06-01T00:00:00+08:00
"""


def test_the_commands_migrate_and_load_products(
    io_loop: IOLoop, database_url: str, tmp_path: Path
) -> None:
    settings = (f"--database-url={database_url}", f"--data-dir={tmp_path / 'data'}")
    file = tmp_path / "goods.toml"
    file.write_text(GOODS)

    early = run("products", "load", str(file), *settings)
    migrated = run("migrate", *settings)
    loaded = run("products", "load", str(file), *settings)
    alone = run("reconcile", "--date=2024-01-31", *settings)
    wrong = run("reconcile", "--date=yesterday", *settings)

    assert (early.returncode, early.stderr.count("\n")) == (2, 1)
    assert "run: python -m vision migrate" in early.stderr
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert (loaded.returncode, loaded.stdout) == (0, "1 products and 1 promotion codes loaded\n")
    assert "no merchant is configured" in alone.stderr
    assert 'date: "yesterday" is not a day' in wrong.stderr
    shop = Shop(database_url)
    (product,) = io_loop.run_sync(shop.payments.products)
    (code,) = io_loop.run_sync(shop.payments.promo_codes)
    assert (product.total_price, product.days) == (1200, 30)
    assert (code.value, code.ends_at) == (20, 1717171200000)
    io_loop.run_sync(shop.close)


def test_a_command_that_is_not_there_shows_those_that_are() -> None:
    found = run("fly")

    assert found.returncode == 2
    assert all(name in found.stderr for name in ("migrate", "products load", "reconcile"))
