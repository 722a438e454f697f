"""What an operator does by hand: `python -m vision COMMAND [--setting=value ...]`.

The law: a command takes the same settings as the server, from the same places, does one thing, and
ends with 0, or with one line that says what is wrong: 2 for a setting or an argument, else 1.

    migrate                    bring the database's schema up to date
    products load FILE         load products and promotion codes from a TOML file
    reconcile --date=DAY       ask about every unpaid order, and compare the bills of a day (UTC+8)
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path
from typing import Final

from tqdm import tqdm  # type: ignore[import-untyped]  # it has no type information

from vision.errors import SettingError, VisionError
from vision.logs import set_up
from vision.payments import migrate
from vision.payments.configured import configured_gateways
from vision.payments.database import Database, sqlite_url
from vision.payments.gateway import Channel, Gateway
from vision.payments.product_store import save
from vision.payments.products_file import read_goods
from vision.payments.service import Payments, assemble, clock, open_database
from vision.payments.store import Case
from vision.settings import Settings, load_settings

USAGE: Final = __doc__.split("\n\n", 2)[2].rstrip()


def main(argv: Sequence[str]) -> int:
    """Run one command; the exit status."""
    try:
        match list(argv):
            case ["migrate", *rest]:
                asyncio.run(_migrate(_settings(rest)))
            case ["products", "load", file, *rest]:
                asyncio.run(_load(_settings(rest), Path(file)))
            case ["reconcile", day, *rest] if day.startswith("--date="):
                asyncio.run(_reconcile(_settings(rest), _day(day.removeprefix("--date="))))
            case _:
                sys.stderr.write(
                    f"usage: python -m vision COMMAND [--setting=value ...]\n{USAGE}\n"
                )
                return 2
    except VisionError as error:
        sys.stderr.write(f"vision: {error.message}\n")
        return 2 if isinstance(error, SettingError) else 1
    return 0


def _settings(argv: Sequence[str]) -> Settings:
    settings = load_settings(argv, os.environ)
    set_up(settings.log_format, sys.stderr)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return settings


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingError(f'date: "{text}" is not a day such as 2026-01-31') from None


async def _migrate(settings: Settings) -> None:
    database = Database(settings.database_url or sqlite_url(settings.data_dir))
    try:
        await migrate.upgrade(database)
    finally:
        await database.close()


async def _load(settings: Settings, file: Path) -> None:
    goods = read_goods(file)
    database = await _open(settings)
    try:
        await database.write(
            lambda connection: save(connection, goods.products, goods.promo_codes, clock())
        )
    finally:
        await database.close()
    counts = f"{len(goods.products)} products and {len(goods.promo_codes)} promotion codes"
    sys.stdout.write(f"{counts} loaded\n")


async def _reconcile(settings: Settings, day: date) -> None:
    async with AsyncExitStack() as stack:
        gateways = _gateways(settings)
        for gateway in gateways.values():
            stack.push_async_callback(gateway.aclose)
        database = await _open(settings)
        stack.push_async_callback(database.close)
        payments = assemble(
            database=database,
            gateways=gateways,
            clock=clock,
            changed=lambda _: None,  # nobody waits here; other processes look into the database
            order_ttl_ms=int(settings.order_ttl * 1000),
            holder=secrets.token_hex(8),
        )
        await _check_unpaid(payments)
        cases = await _compare(payments, day)
    for case in cases:
        sys.stdout.write(f"{case.kind} {case.order_id}: {case.detail}\n")
    sys.stdout.write(f"{len(cases)} differences\n")


async def _check_unpaid(payments: Payments) -> None:
    last = 0
    with tqdm(desc="unpaid orders", unit="") as bar:
        while orders := await payments.reconciler.unpaid(last):
            await payments.reconciler.check(orders)
            last = orders[-1].id
            bar.update(len(orders))


async def _compare(payments: Payments, day: date) -> Sequence[Case]:
    with tqdm(desc=f"bill of {day}", unit="") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return await payments.reconciler.compare(day, progress)


async def _open(settings: Settings) -> Database:
    return await open_database(
        settings.database_url, settings.data_dir, production=settings.production
    )


def _gateways(settings: Settings) -> dict[Channel, Gateway]:
    """The merchants that are configured: the sandbox belongs to a server that runs."""
    gateways = configured_gateways(settings)
    if not gateways:
        raise SettingError("no merchant is configured: set wechat-merchant-id or alipay-app-id")
    return gateways


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
