"""Promotion codes in the database: held by an order, and given back.

The law: a code's row is locked before its uses are counted and until the order that takes one is
committed, so that a hundred orders at once take one after the other, and the last ones find none.
`promo_codes.used` is the number of rows in `promo_uses`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import tables
from vision.payments.errors import PromoCodeRefused
from vision.payments.order import Order
from vision.payments.product import PromoCode

_PROMO: Final = tuple(tables.promo_codes.c[each.name] for each in fields(PromoCode))


async def lock_promo(connection: AsyncConnection, code: str) -> PromoCode:
    """The code, which nobody else can use until this transaction ends. Raises PromoCodeRefused."""
    query = select(*_PROMO).where(tables.promo_codes.c.code == code).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is None:
        raise PromoCodeRefused(f'there is no code "{code}"', path="promoCode")
    return PromoCode(**row)


async def uses_of(connection: AsyncConnection, code: str, uid: str) -> int:
    """How many orders of a user hold or have used the code, which is locked."""
    uses = tables.promo_uses.c
    query = select(func.count()).where(uses.code == code, uses.uid == uid)
    return int((await connection.execute(query)).scalar_one())


async def hold(connection: AsyncConnection, order: Order, now: int) -> None:
    """Count an order that uses its code, which is locked."""
    values = {"order_id": order.order_id, "code": order.promo_code, "uid": order.uid}
    await connection.execute(insert(tables.promo_uses).values(values | {"created_at": now}))
    await _count(connection, order.promo_code, 1)


async def release(connection: AsyncConnection, order: Order) -> None:
    """Give back the code of an order that is locked and closes unpaid: it holds it until now."""
    where = tables.promo_uses.c.order_id == order.order_id
    await connection.execute(delete(tables.promo_uses).where(where))
    await _count(connection, order.promo_code, -1)


async def _count(connection: AsyncConnection, code: str, change: int) -> None:
    codes = tables.promo_codes
    values = {"used": codes.c.used + change}
    await connection.execute(update(codes).where(codes.c.code == code).values(values))
