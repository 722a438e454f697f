"""Payments put together: every part of them, on one database and its gateways.

The law: the parts share one database, one clock and one way to tell that an order has changed, and
a server never runs on a schema that is not its own. Embedded (no `database-url`), the file in the
data folder is made and brought up to date, and outside of production it has sample products.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import migrate, product_store
from vision.payments.bill import Bills
from vision.payments.checkout import Checkout
from vision.payments.database import Database, sqlite_url
from vision.payments.gateway import Channel, Gateway
from vision.payments.intake import Intake
from vision.payments.internal import InternalNotify
from vision.payments.lease import Lease
from vision.payments.moments import now_ms
from vision.payments.order import Order
from vision.payments.product import Product, PromoCode
from vision.payments.reconcile import Reconciler
from vision.payments.refunds import Refunds
from vision.payments.settle import Settler
from vision.payments.store import Case, list_cases

RECONCILE_LEASE: Final = "reconcile"


def clock() -> int:
    """Now, in ms since the epoch."""
    return now_ms(time.time())


@dataclass(frozen=True, slots=True)
class Payments:
    """What the handlers call. `reconciler.run` needs an owner."""

    database: Database
    checkout: Checkout
    refunds: Refunds
    internal: InternalNotify
    intake: Intake
    settler: Settler
    reconciler: Reconciler
    clock: Callable[[], int]

    async def products(self) -> list[Product]:
        """All products. Raises `StoreUnavailable`."""
        return await self.database.read(product_store.list_products)

    async def promo_codes(self) -> list[PromoCode]:
        """All promotion codes. Raises `StoreUnavailable`."""
        return await self.database.read(product_store.list_promo_codes)

    async def cases(self) -> list[Case]:
        """What a person has to look at, the oldest first. Raises `StoreUnavailable`."""
        return await self.database.read(list_cases)

    async def save(self, products: list[Product], promo_codes: list[PromoCode]) -> None:
        """Write what is sold; the same names are replaced. Raises `StoreUnavailable`."""

        async def act(connection: AsyncConnection) -> None:
            await product_store.save(connection, products, promo_codes, self.clock())

        await self.database.write(act)


def assemble(
    *,
    database: Database,
    gateways: Mapping[Channel, Gateway],
    clock: Callable[[], int],
    changed: Callable[[Order], None],
    order_ttl_ms: int,
    holder: str,
) -> Payments:
    """All parts. `changed` hears of each order that has moved, after the commit, on this process;
    `holder` is this process's name for leases."""
    settler = Settler(database, gateways, clock, changed)
    checkout = Checkout(
        database=database,
        settler=settler,
        clock=clock,
        changed=changed,
        order_ttl_ms=order_ttl_ms,
    )
    refunds = Refunds(database, settler, clock, changed)
    intake = Intake(database, settler, refunds, clock)
    reconciler = Reconciler(
        database=database,
        lease=Lease(database, RECONCILE_LEASE, holder, clock),
        checkout=checkout,
        refunds=refunds,
        bills=Bills(database, settler, clock),
        intake=intake,
        channels=list(gateways),
        clock=clock,
    )
    internal = InternalNotify(database, settler, clock)
    return Payments(database, checkout, refunds, internal, intake, settler, reconciler, clock)


async def open_database(url: str, folder: Path, *, production: bool) -> Database:
    """The database of the setting `database-url`, or the one in the data folder; its owner closes
    it. Raises `SchemaMismatch` and `StoreUnavailable`."""
    database = Database(url or sqlite_url(folder))
    try:
        if url:
            await migrate.check(database)
        else:
            await _embed(database, production=production)
    except BaseException:
        await database.close()
        raise
    return database


async def _embed(database: Database, *, production: bool) -> None:
    await migrate.upgrade(database)
    if not production:

        async def act(connection: AsyncConnection) -> None:
            await product_store.save_demo(connection, clock())

        await database.write(act)
