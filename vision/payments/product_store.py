"""Products and promotion codes in the database.

The law: what is loaded replaces what has the same name and touches nothing else; an order keeps
what it was made with. How often a code was used is counted here and never loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import tables
from vision.payments.errors import UnknownProduct
from vision.payments.product import Product, PromoCode

_PRODUCT: Final = tuple(tables.products.c[each.name] for each in fields(Product))
_PROMO: Final = tuple(tables.promo_codes.c[each.name] for each in fields(PromoCode))

# What is there to try the whole flow with, before anybody has thought of products.
DEMO_PRODUCTS: Final = (
    Product("demo-day", "demo", "One day (demo)", price=100, total_price=100, days=1),
    Product("demo-month", "demo", "Thirty days (demo)", price=100, total_price=2000, days=30),
    Product("demo-tokens", "demo", "100,000 tokens (demo)", 500, 500, tokens=100_000),
)


async def find_product(connection: AsyncConnection, product_id: str) -> Product:
    """A product that is sold now. Raises UnknownProduct."""
    query = select(*_PRODUCT).where(tables.products.c.product_id == product_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None or not row["active"]:
        raise UnknownProduct(f'no product "{product_id}" is sold', path="productId")
    return Product(**row)


async def list_products(connection: AsyncConnection) -> list[Product]:
    """All products, those that are not sold now too."""
    rows = await connection.execute(select(*_PRODUCT).order_by(tables.products.c.product_id))
    return [Product(**row) for row in rows.mappings()]


async def list_promo_codes(connection: AsyncConnection) -> list[PromoCode]:
    """All promotion codes."""
    rows = await connection.execute(select(*_PROMO).order_by(tables.promo_codes.c.code))
    return [PromoCode(**row) for row in rows.mappings()]


async def save(
    connection: AsyncConnection,
    products: Sequence[Product],
    promo_codes: Sequence[PromoCode],
    now: int,
) -> None:
    """Write products and promotion codes; those of the same name are replaced."""
    for product in products:
        await _put(connection, tables.products, "product_id", asdict(product), now)
    for promo in promo_codes:
        await _put(connection, tables.promo_codes, "code", asdict(promo), now)


async def save_demo(connection: AsyncConnection, now: int) -> None:
    """Write the sample products, if there are no products at all."""
    if not await list_products(connection):
        await save(connection, DEMO_PRODUCTS, (), now)


async def _put(
    connection: AsyncConnection, table: Table, key: str, values: dict[str, Any], now: int
) -> None:
    values["updated_at"] = now
    where = table.c[key] == values[key]
    # The row is locked, so that an order that is using the code comes before or after.
    there = await connection.execute(select(table.c[key]).where(where).with_for_update())
    if there.first() is None:
        await connection.execute(insert(table).values(values))
    else:
        values.pop("used", None)
        await connection.execute(update(table).where(where).values(values))
