"""Refunds: promised here, asked of the gateway, and taken back from the user, each once.

The law: what is to be given back is reserved on its payment, in the database, before the gateway is
asked, and the reservations of a payment never exceed it; so no two refunds can, however many come
at once. The same refund number is the same refund. A refund counts only when the gateway says that
it is done: then, in one transaction, the order's sum grows, the order moves if that was all, and
the entitlement is taken back. A refund that failed frees its reservation.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import structlog
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import store, tables
from vision.payments.database import Database
from vision.payments.entitlement import Refunded
from vision.payments.errors import GatewayRefused, GatewayUnavailable, RefundRefused, UnknownOrder
from vision.payments.gateway import Channel, RefundOrder, RefundStanding
from vision.payments.granting import take_back
from vision.payments.money import yuan
from vision.payments.order import Move, Order, Status, move, next_check
from vision.payments.settle import Settler
from vision.payments.store import Case, Paid

REFUND_FAILED: Final = "refund_failed"
UNKNOWN_REFUND: Final = "unknown_refund"
REFUND_AMOUNT: Final = "refund_amount"

_logger = structlog.get_logger("vision.payments")


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund as recorded: `amount` of the `total` of its payment, in fen."""

    refund_id: str
    order_id: str
    channel: Channel
    transaction_id: str
    amount: int
    total: int
    reason: str
    state: Literal["pending", "done", "failed"]
    checks: int

    @property
    def wanted(self) -> RefundOrder:
        """What the gateway is asked for, the same each time."""
        return RefundOrder(
            order_id=self.order_id,
            transaction_id=self.transaction_id,
            refund_id=self.refund_id,
            amount=self.amount,
            total=self.total,
            reason=self.reason,
        )


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """What is to be given back: `amount` None is all that is left.

    With `transaction_id` it is that payment, such as a second one that was refused; without, the
    one that paid the order. `refund_id` makes repeating safe; without one, a new one is made.
    """

    order_id: str
    amount: int | None = None
    reason: str = ""
    refund_id: str | None = None
    transaction_id: str | None = None


_REFUND: Final = tuple(tables.refunds.c[each.name] for each in fields(Refund))


class Refunds:
    """The refunds of this server. `changed` hears of the orders, after the commit."""

    def __init__(
        self,
        database: Database,
        settler: Settler,
        clock: Callable[[], int],
        changed: Callable[[Order], None],
    ) -> None:
        self._database = database
        self._settler = settler
        self._clock = clock
        self._changed = changed

    async def refund(self, request: RefundRequest) -> Refund:
        """Give money back; the refund, done or still pending (then it is followed up).

        Raises `UnknownOrder`, `RefundRefused`, `GatewayRefused`, `GatewayUnavailable` only before
        anything was promised, and `StoreUnavailable`.
        """
        refund_id = request.refund_id or secrets.token_hex(16)
        await self._name_transaction(request.order_id)

        async def act(connection: AsyncConnection) -> Refund:
            return await _reserve(connection, request, refund_id, self._clock())

        refund = await self._database.write(act)
        if refund.state == "failed":
            raise RefundRefused("this refund has failed; ask again with a new number")
        if refund.state == "done":
            return refund
        try:
            return await self.pursue(refund)
        except GatewayUnavailable:
            return refund

    async def _name_transaction(self, order_id: str) -> None:
        """Have the gateway name the transaction of an order that an internal caller settled."""

        async def act(connection: AsyncConnection) -> Order | None:
            return await store.find_order(connection, order_id)

        order = await self._database.read(act)
        if order is not None and order.transaction_id.startswith(store.PLACEHOLDER):
            standing = await self._settler.gateway(order.channel).query(order_id)
            if standing.payment is not None:
                await self._settler.settle(standing.payment, "query")

    async def pursue(self, refund: Refund) -> Refund:
        """Ask the gateway for a pending refund, again or for the first time, and apply the answer.

        Raises `GatewayUnavailable` (it stays pending), `GatewayRefused` (it has failed).
        """
        gateway = self._settler.gateway(refund.channel)
        try:
            standing = await gateway.refund(refund.wanted)
        except GatewayRefused:
            # A try that seemed lost may have arrived, and this be the answer to a repetition.
            standing = await gateway.query_refund(refund.wanted)
            if standing.state == "unknown":
                standing = RefundStanding(refund.refund_id, "failed", None)
            found = await self.apply(standing, refund.order_id)
            if found is None or found.state == "failed":
                raise
            return found
        return await self.apply(standing, refund.order_id) or refund

    async def apply(self, standing: RefundStanding, order_id: str | None) -> Refund | None:
        """Apply what the gateway says of a refund; it, or None when it is not one of ours.

        Told again it changes nothing. Raises `StoreUnavailable`.
        """

        async def act(connection: AsyncConnection) -> tuple[Refund | None, Order | None]:
            return await _apply(connection, standing, order_id, self._clock())

        refund, order = await self._database.write(act)
        if order is not None:
            self._changed(order)
        _logger.info("refund", refund_id=standing.refund_id, state=standing.state)
        return refund

    async def due(self, now: int, most: int) -> list[Refund]:
        """Pending refunds that it is time to ask about."""
        refunds = tables.refunds.c
        query = select(*_REFUND).where(refunds.state == "pending", refunds.next_check_at <= now)

        async def act(connection: AsyncConnection) -> list[Refund]:
            rows = await connection.execute(query.order_by(refunds.next_check_at).limit(most))
            return [Refund(**row) for row in rows.mappings()]

        return await self._database.read(act)

    async def postpone(self, refund: Refund, now: int) -> None:
        """Ask about a refund again later, each time after a longer while."""

        async def act(connection: AsyncConnection) -> None:
            checks = refund.checks + 1
            await _change(connection, refund, checks=checks, next_check_at=next_check(checks, now))

        await self._database.write(act)


async def _reserve(
    connection: AsyncConnection, request: RefundRequest, refund_id: str, now: int
) -> Refund:
    order = await store.lock_order(connection, request.order_id)
    if order is None:
        raise UnknownOrder(f'there is no order "{request.order_id}"', path="orderId")
    before = await _find(connection, refund_id)
    if before is not None:
        if before.order_id == order.order_id and request.amount in (None, before.amount):
            return before
        raise RefundRefused("the number was used for another refund", path="refundId")
    paid = await _payment(connection, order, request)
    left = paid.amount - paid.reserved
    amount = left if request.amount is None else request.amount
    if not 0 < amount <= left:
        refused = f"{left} fen ({yuan(left)} yuan) are left of the payment, not {amount}"
        raise RefundRefused(refused, path="amount")
    await store.change_payment(connection, paid, reserved=paid.reserved + amount)
    refund = Refund(
        refund_id=refund_id,
        order_id=order.order_id,
        channel=paid.channel,
        transaction_id=paid.transaction_id,
        amount=amount,
        total=paid.amount,
        reason=request.reason,
        state="pending",
        checks=0,
    )
    values: dict[str, Any] = {each.name: getattr(refund, each.name) for each in fields(Refund)}
    values |= {"next_check_at": next_check(0, now), "created_at": now, "updated_at": now}
    await connection.execute(insert(tables.refunds).values(values))
    return refund


async def _payment(connection: AsyncConnection, order: Order, request: RefundRequest) -> Paid:
    number = request.transaction_id or order.transaction_id
    paid = await store.lock_payment(connection, order.channel, number) if number else None
    if paid is None or paid.order_id != order.order_id:
        raise RefundRefused(f"no payment of the order, which is {order.status.name.lower()}")
    return paid


async def _find(connection: AsyncConnection, refund_id: str) -> Refund | None:
    query = select(*_REFUND).where(tables.refunds.c.refund_id == refund_id)
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else Refund(**row)


async def _apply(
    connection: AsyncConnection, standing: RefundStanding, order_id: str | None, now: int
) -> tuple[Refund | None, Order | None]:
    refund = await _find(connection, standing.refund_id)
    if refund is None:
        detail = f"the gateway tells of a refund that was not asked for here: {standing.state}"
        case = Case(UNKNOWN_REFUND, standing.refund_id, order_id or "", detail)
        await store.open_case(connection, case, now)
        return None, None
    order = await store.lock_order(connection, refund.order_id)
    refund = await _find(connection, standing.refund_id)  # as it is behind the lock
    if order is None or refund is None or refund.state != "pending":
        return refund, None
    if standing.state == "failed":
        return await _fail(connection, refund, now), None
    if standing.state == "done":
        return await _finish(connection, refund, standing, order, now)
    return refund, None


async def _fail(connection: AsyncConnection, refund: Refund, now: int) -> Refund:
    paid = await store.lock_payment(connection, refund.channel, refund.transaction_id)
    if paid is not None:
        await store.change_payment(connection, paid, reserved=paid.reserved - refund.amount)
    detail = f"the gateway did not give {yuan(refund.amount)} back; nothing was taken back here"
    case = Case(REFUND_FAILED, refund.refund_id, refund.order_id, detail)
    await store.open_case(connection, case, now)
    await _change(connection, refund, state="failed", updated_at=now)
    return replace(refund, state="failed")


async def _finish(
    connection: AsyncConnection, refund: Refund, standing: RefundStanding, order: Order, now: int
) -> tuple[Refund, Order | None]:
    await _change(connection, refund, state="done", updated_at=now)
    if standing.amount not in (None, refund.amount):
        detail = f"asked for {refund.amount} fen, the gateway gave {standing.amount} back"
        case = Case(REFUND_AMOUNT, refund.refund_id, refund.order_id, detail)
        await store.open_case(connection, case, now)
    refund = replace(refund, state="done")
    if refund.transaction_id != order.transaction_id:
        return refund, None  # a payment that was refused: it granted nothing
    after = order.refunded + refund.amount
    status = move(order.status, Move.REFUND_ALL) if after == order.amount else order.status
    refunded = Refunded(order.order_id, order.amount, order.refunded, after)
    await take_back(connection, order, refunded, now)
    order = await store.change_order(connection, order, now, status=status, refunded=after)
    return refund, order


async def _change(connection: AsyncConnection, refund: Refund, **values: Any) -> None:
    where = tables.refunds.c.refund_id == refund.refund_id
    await connection.execute(update(tables.refunds).where(where).values(values))


__all__ = ["Refund", "RefundRequest", "Refunds", "Status"]
