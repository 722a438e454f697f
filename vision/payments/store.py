"""Orders, their payments and the cases for a person: rows in, data out.

The law: every function takes the connection of a transaction that its caller has begun, and no
function commits. Whoever changes an order has locked it before, with `lock_order`; the order is
locked before its payment, its promotion code and its user's entitlement, in this sequence, so that
transactions wait for each other in one direction only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import tables
from vision.payments.gateway import Channel, Payment
from vision.payments.order import Order, Status

# Payments that nobody named a gateway's transaction for: see `internal.py`.
PLACEHOLDER: Final = "internal-"


@dataclass(frozen=True, slots=True)
class Paid:
    """A payment as recorded: `refusal` is "" when it has paid its order.

    `reserved` is the sum, in fen, of all refunds of it that have not failed.
    """

    channel: Channel
    transaction_id: str
    order_id: str
    amount: int
    currency: str
    merchant: str
    app: str
    paid_at: int
    source: str
    refusal: str
    reserved: int

    @property
    def settled(self) -> bool:
        """Whether it has paid its order."""
        return not self.refusal

    @property
    def placeholder(self) -> bool:
        """Whether it stands in until the gateway names the transaction."""
        return self.transaction_id.startswith(PLACEHOLDER)


@dataclass(frozen=True, slots=True)
class Case:
    """What a person has to look at; one `kind` and `subject` make one case."""

    kind: str
    subject: str
    order_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the orders, newest first, and how many there are in all."""

    orders: Sequence[Order]
    total: int


_ORDER: Final = tuple(tables.orders.c[each.name] for each in fields(Order))
_PAID: Final = tuple(tables.payments.c[each.name] for each in fields(Paid))


def order_of(row: RowMapping) -> Order:
    """The order of a row of `orders`."""
    return Order(**{**row, "status": Status(row["status"])})


def select_orders() -> Select[Any]:
    """A query for whole orders, for the caller to narrow down."""
    return select(*_ORDER)


async def find_order(connection: AsyncConnection, order_id: str) -> Order | None:
    """The order as last committed."""
    return await _one_order(connection, select_orders().where(tables.orders.c.order_id == order_id))


async def lock_order(connection: AsyncConnection, order_id: str) -> Order | None:
    """The order, which nobody else can change until this transaction ends."""
    query = select_orders().where(tables.orders.c.order_id == order_id).with_for_update()
    return await _one_order(connection, query)


async def find_by_key(connection: AsyncConnection, key: str) -> Order | None:
    """The order that was made with an idempotency key."""
    query = select_orders().where(tables.orders.c.idempotency_key == key)
    return await _one_order(connection, query)


async def _one_order(connection: AsyncConnection, query: Select[Any]) -> Order | None:
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else order_of(row)


async def insert_order(connection: AsyncConnection, order: Order, key: str | None) -> Order:
    """Write a new order; it, with its number."""
    values = {each.name: getattr(order, each.name) for each in fields(Order) if each.name != "id"}
    values["idempotency_key"] = key
    result = await connection.execute(insert(tables.orders).values(values))
    key_row = result.inserted_primary_key
    assert key_row is not None  # noqa: S101 -- one row was inserted, so it has a number
    return replace(order, id=key_row[0])


async def change_order(connection: AsyncConnection, order: Order, now: int, **values: Any) -> Order:
    """Write some fields of a locked order; the order as it is then."""
    values["updated_at"] = now
    where = tables.orders.c.order_id == order.order_id
    await connection.execute(update(tables.orders).where(where).values(values))
    return replace(order, **values)


async def list_orders(
    connection: AsyncConnection, uid: str | None, product_line: str | None, page: int, size: int
) -> Page:
    """Page `page` (from 1) of the orders of a user, of a line, of both, or of all."""
    wanted = []
    if uid is not None:
        wanted.append(tables.orders.c.uid == uid)
    if product_line is not None:
        wanted.append(tables.orders.c.product_line == product_line)
    counting = select(func.count()).select_from(tables.orders).where(*wanted)
    total = (await connection.execute(counting)).scalar_one()
    newest = (tables.orders.c.created_at.desc(), tables.orders.c.id.desc())
    query = select_orders().where(*wanted).order_by(*newest)
    rows = await connection.execute(query.limit(size).offset((page - 1) * size))
    return Page([order_of(row) for row in rows.mappings()], total)


async def lock_payment(
    connection: AsyncConnection, channel: Channel, transaction_id: str
) -> Paid | None:
    """What is recorded of a gateway's transaction."""
    query = select(*_PAID).where(*_is(channel, transaction_id)).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else Paid(**row)


async def write_payment(
    connection: AsyncConnection,
    known: Paid | None,
    payment: Payment,
    *,
    source: str,
    refusal: str,
    now: int,
) -> None:
    """Record a transaction, or how it is seen now. A settled one is never written over."""
    values = {each.name: getattr(payment, each.name) for each in fields(Payment)}
    values |= {"source": source, "refusal": refusal}
    if known is None:
        values |= {"reserved": 0, "created_at": now}
        await connection.execute(insert(tables.payments).values(values))
    elif not known.settled:
        where = _is(payment.channel, payment.transaction_id)
        await connection.execute(update(tables.payments).where(*where).values(values))


async def change_payment(connection: AsyncConnection, paid: Paid, **values: Any) -> None:
    """Write some fields of a payment whose order is locked."""
    where = _is(paid.channel, paid.transaction_id)
    await connection.execute(update(tables.payments).where(*where).values(values))


async def name_payment(
    connection: AsyncConnection, paid: Paid, transaction_id: str, paid_at: int
) -> None:
    """Give a payment, and the refunds of it, the number that the gateway knows it by."""
    await change_payment(connection, paid, transaction_id=transaction_id, paid_at=paid_at)
    refunds = tables.refunds
    where = (refunds.c.channel == paid.channel, refunds.c.transaction_id == paid.transaction_id)
    await connection.execute(update(refunds).where(*where).values(transaction_id=transaction_id))


async def open_case(connection: AsyncConnection, case: Case, now: int) -> None:
    """Put something before a person, unless it is there already."""
    there = select(tables.cases.c.id).where(
        tables.cases.c.kind == case.kind, tables.cases.c.subject == case.subject
    )
    if (await connection.execute(there)).first() is None:
        values = {each.name: getattr(case, each.name) for each in fields(Case)}
        await connection.execute(insert(tables.cases).values(values | {"created_at": now}))


async def list_cases(connection: AsyncConnection) -> list[Case]:
    """All cases, the oldest first."""
    columns = (tables.cases.c[each.name] for each in fields(Case))
    rows = await connection.execute(select(*columns).order_by(tables.cases.c.id))
    return [Case(**row) for row in rows.mappings()]


def _is(channel: Channel, transaction_id: str) -> tuple[Any, Any]:
    payments = tables.payments.c
    return payments.channel == channel, payments.transaction_id == transaction_id
