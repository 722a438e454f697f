"""Grants and entitlements in the database.

The law: whoever changes what a user may use has locked the user's entitlement in that line before,
and every change is the sum of all grants, added up anew (`entitlement.py`). A grant is written in
the transaction that makes its order paid, and its key is the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import tables
from vision.payments.entitlement import (
    DAY_MS,
    Entitlement,
    Grant,
    Refunded,
    add_up,
    revoke,
)
from vision.payments.order import Order

_GRANT: Final = tuple(tables.grants.c[each.name] for each in fields(Grant))
_ENTITLEMENT: Final = tuple(tables.entitlements.c[each.name] for each in fields(Entitlement))


async def grant(connection: AsyncConnection, order: Order, now: int) -> None:
    """Give what the order bought. The order is locked, and its payment is in this transaction."""
    entitlement = await _lock(connection, order.uid, order.product_line, now)
    granted = Grant(order.order_id, now, order.days * DAY_MS, order.tokens)
    values = {each.name: getattr(granted, each.name) for each in fields(Grant)}
    values |= {"uid": order.uid, "product_line": order.product_line}
    await connection.execute(insert(tables.grants).values(values))
    await _write(connection, entitlement, now)


async def take_back(
    connection: AsyncConnection, order: Order, refunded: Refunded, now: int
) -> None:
    """Take back what a refund of the order is worth. The order is locked."""
    entitlement = await _lock(connection, order.uid, order.product_line, now)
    grants = await _grants(connection, entitlement)
    left = revoke(grants, entitlement.tokens_used, refunded, now)
    if left is not None:
        values = {"revoked_ms": left.revoked_ms, "revoked_tokens": left.revoked_tokens}
        where = tables.grants.c.order_id == left.order_id
        await connection.execute(update(tables.grants).where(where).values(values))
        await _write(connection, entitlement, now)


async def entitlements_of(connection: AsyncConnection, uid: str) -> list[Entitlement]:
    """What a user has, by product line."""
    query = select(*_ENTITLEMENT).where(tables.entitlements.c.uid == uid)
    rows = await connection.execute(query.order_by(tables.entitlements.c.product_line))
    return [Entitlement(**row) for row in rows.mappings()]


async def _lock(connection: AsyncConnection, uid: str, product_line: str, now: int) -> Entitlement:
    query = select(*_ENTITLEMENT).where(*_of(uid, product_line)).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    if row is not None:
        return Entitlement(**row)
    # Should another transaction insert the same row first, this one runs anew and finds it.
    fresh = Entitlement(uid, product_line, ends_at=0, tokens=0, tokens_used=0)
    values = {each.name: getattr(fresh, each.name) for each in fields(Entitlement)}
    await connection.execute(insert(tables.entitlements).values(values | {"updated_at": now}))
    return fresh


async def _grants(connection: AsyncConnection, entitlement: Entitlement) -> Sequence[Grant]:
    grants = tables.grants.c
    query = select(*_GRANT).where(
        grants.uid == entitlement.uid, grants.product_line == entitlement.product_line
    )
    return [Grant(**row) for row in (await connection.execute(query)).mappings()]


async def _write(connection: AsyncConnection, before: Entitlement, now: int) -> Entitlement:
    after = add_up(before, await _grants(connection, before))
    values = {
        "ends_at": after.ends_at,
        "tokens": after.tokens,
        "tokens_used": after.tokens_used,
        "updated_at": now,
    }
    where = _of(before.uid, before.product_line)
    await connection.execute(update(tables.entitlements).where(*where).values(values))
    return after


def _of(uid: str, product_line: str) -> tuple[Any, Any]:
    columns = tables.entitlements.c
    return columns.uid == uid, columns.product_line == product_line
