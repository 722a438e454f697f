"""A payment that a trusted caller of our own tells of, in the documented words.

The law: it settles the one unpaid order that it can mean, or none. With an order number it means
that order; without, the unpaid order of this user, product and amount; several are refused rather
than guessed at. Told again, it is answered with success and grants nothing more. Without the
gateway's transaction number, our own stands in for it until the gateway names one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.errors import InvalidRequest
from vision.payments import store, tables
from vision.payments.database import Database
from vision.payments.errors import AmbiguousOrder, OrderNotPayable, PriceMismatch, UnknownOrder
from vision.payments.gateway import Payment
from vision.payments.money import CURRENCY, yuan
from vision.payments.order import Order, Refusal, Status
from vision.payments.settle import Settlement, Settler, apply
from vision.payments.store import PLACEHOLDER, Case

# Money that a caller says it has and that belongs to no order here.
NO_ORDER = "internal_without_order"


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller says: the documented fields; `amount` in fen."""

    uid: str
    product_id: str
    amount: int
    order_id: str | None = None
    transaction_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What the transaction found; a wrong amount is committed as a case before it is an error."""

    settlement: Settlement | None = None
    payment: Payment | None = None
    error: UnknownOrder | PriceMismatch | OrderNotPayable | None = None


class InternalNotify:
    """Settles what trusted callers tell of."""

    def __init__(self, database: Database, settler: Settler, clock: Callable[[], int]) -> None:
        self._database = database
        self._settler = settler
        self._clock = clock

    async def tell(self, told: Told) -> Order:
        """Settle; the order, paid now or before.

        Raises `UnknownOrder`, `AmbiguousOrder`, `PriceMismatch` (recorded as a case),
        `OrderNotPayable`, `InvalidRequest` for a transaction number of another order, and
        `StoreUnavailable`.
        """

        async def act(connection: AsyncConnection) -> _Outcome:
            return await self._tell(connection, told)

        outcome = await self._database.write(act)
        if outcome.settlement is not None and outcome.payment is not None:
            self._settler.announce(outcome.settlement, outcome.payment, "internal")
        if outcome.error is not None:
            raise outcome.error
        assert outcome.settlement is not None  # noqa: S101 -- there is one or an error
        assert outcome.settlement.order is not None  # noqa: S101 -- it was found before
        return outcome.settlement.order

    async def _tell(self, connection: AsyncConnection, told: Told) -> _Outcome:
        now = self._clock()
        repeated = await _repeated(connection, told)
        if repeated is not None:
            return _Outcome(Settlement("already", repeated))
        order = await _meant(connection, told)
        # Whoever held the lock until now may have been told of the same transaction.
        repeated = await _repeated(connection, told)
        if repeated is not None:
            return _Outcome(Settlement("already", repeated))
        if order is None:
            return await _no_order(connection, told, now)
        if order.status in {Status.PAID, Status.REFUNDED} and order.amount == told.amount:
            return _Outcome(Settlement("already", order))
        payment = Payment(
            channel=order.channel,
            order_id=order.order_id,
            transaction_id=told.transaction_id or PLACEHOLDER + order.order_id,
            amount=told.amount,
            currency=CURRENCY,
            merchant=order.merchant,
            app=order.app,
            paid_at=now,
        )
        ours = self._settler.recipient(order.channel)
        settlement = await apply(connection, payment, "internal", ours, now)
        return _Outcome(settlement, payment, _error(settlement, order, told))


def _error(
    settlement: Settlement, order: Order, told: Told
) -> PriceMismatch | OrderNotPayable | None:
    if settlement.refusal is None:
        return None
    if settlement.refusal is Refusal.WRONG_AMOUNT:
        expected = f"expected {order.amount} fen ({yuan(order.amount)} yuan), not {told.amount}"
        return PriceMismatch(f"{expected}; it was recorded, and nothing was granted", path="amount")
    return OrderNotPayable(f"the payment was refused and recorded: {settlement.refusal}")


async def _repeated(connection: AsyncConnection, told: Told) -> Order | None:
    """The order that this transaction has paid already."""
    if told.transaction_id is None:
        return None
    query = select(tables.payments.c.order_id).where(
        tables.payments.c.transaction_id == told.transaction_id, tables.payments.c.refusal == ""
    )
    for order_id in (await connection.execute(query)).scalars():
        order = await store.find_order(connection, order_id)
        if order is not None and _fits(order, told) and order.amount == told.amount:
            return order
        raise InvalidRequest("the transaction has paid another order", path="transactionId")
    return None


async def _meant(connection: AsyncConnection, told: Told) -> Order | None:
    """The order that is meant, locked; None when there is none. Raises AmbiguousOrder."""
    if told.order_id is not None:
        order = await store.lock_order(connection, told.order_id)
        return order if order is not None and _fits(order, told) else None
    unpaid = await _orders(connection, told, Status.UNPAID)
    matching = [order for order in unpaid if order.amount == told.amount]
    if len(matching) > 1 or (len(unpaid) > 1 and not matching):
        raise AmbiguousOrder(
            f"{len(unpaid)} unpaid orders match; say which one is meant", path="orderId"
        )
    if unpaid:
        return (matching or unpaid)[0]
    if told.transaction_id is not None:
        return None  # new money, and no order that it could be for
    paid = await _orders(connection, told, Status.PAID)
    return next((order for order in paid if order.amount == told.amount), None)


async def _orders(connection: AsyncConnection, told: Told, status: Status) -> Sequence[Order]:
    orders = tables.orders.c
    query = store.select_orders().where(
        orders.uid == told.uid, orders.product_id == told.product_id, orders.status == status
    )
    rows = await connection.execute(query.with_for_update())
    return [store.order_of(row) for row in rows.mappings()]


async def _no_order(connection: AsyncConnection, told: Told, now: int) -> _Outcome:
    wanted = f'no unpaid order of user "{told.uid}" for product "{told.product_id}"'
    if told.transaction_id is not None:
        subject = f"{told.transaction_id}:{told.order_id or ''}"
        detail = f"an internal caller says {yuan(told.amount)}; there is {wanted}"
        case = Case(NO_ORDER, subject, told.order_id or "", detail)
        await store.open_case(connection, case, now)
    path = "orderId" if told.order_id else ""
    return _Outcome(error=UnknownOrder(f"there is {wanted}", path=path))


def _fits(order: Order, told: Told) -> bool:
    return (order.uid, order.product_id) == (told.uid, told.product_id) and (
        told.order_id in (None, order.order_id)
    )
