"""Settle: apply a payment to its order, once.

The law: every payment, whoever told of it (a notification, a query, the reconciler, an internal
caller), goes through `apply`, in one transaction: lock the order, find or record the gateway's
transaction, compare, move the order, grant, commit. So an order is paid, has one settled payment
and has one grant, or it has none of the three. A payment that does not fit is recorded with the
reason and becomes a case for a person; told again, it is looked at again, and settles if what was
wrong has been mended. Money that was taken is granted, or is in a case until it is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import promo_uses, store
from vision.payments.database import Database
from vision.payments.errors import GatewayUnavailable, PromoCodeRefused
from vision.payments.gateway import Channel, Gateway, Payment
from vision.payments.granting import grant
from vision.payments.money import yuan
from vision.payments.order import Move, Order, Recipient, Refusal, Status, move, refusal
from vision.payments.store import Case, Paid

Source = Literal["notification", "query", "reconcile", "internal"]
Verdict = Literal["settled", "already", "refused"]

PAID_LATE: Final = "paid_late"

_logger = structlog.get_logger("vision.payments")


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a payment. `order` is as it is after it; None when there is no such order."""

    verdict: Verdict
    order: Order | None
    refusal: Refusal | None = None


class Settler:
    """Applies payments. `changed` hears of every order that has become paid, after the commit."""

    def __init__(
        self,
        database: Database,
        gateways: Mapping[Channel, Gateway],
        clock: Callable[[], int],
        changed: Callable[[Order], None],
    ) -> None:
        self._database = database
        self._gateways = gateways
        self._clock = clock
        self._changed = changed

    async def settle(self, payment: Payment, source: Source) -> Settlement:
        """Apply a payment that was verified to come from its gateway. Committed on return.

        Raises StoreUnavailable; then it may or may not be committed, and can be repeated.
        """

        async def act(connection: AsyncConnection) -> Settlement:
            ours = self.recipient(payment.channel)
            return await apply(connection, payment, source, ours, self._clock())

        settlement = await self._database.write(act)
        self.announce(settlement, payment, source)
        return settlement

    def gateway(self, channel: Channel) -> Gateway:
        """The gateway of a channel. Raises GatewayUnavailable when none is configured."""
        try:
            return self._gateways[channel]
        except KeyError:
            raise GatewayUnavailable(f'no gateway is configured for "{channel}"') from None

    def recipient(self, channel: Channel) -> Recipient:
        """Whom money of this channel must have reached."""
        gateway = self.gateway(channel)
        return Recipient(gateway.merchant, gateway.app)

    def announce(self, settlement: Settlement, payment: Payment, source: Source) -> None:
        """Say what was committed, in the log and to who waits for the order."""
        facts = {"order_id": payment.order_id, "transaction_id": payment.transaction_id}
        if settlement.verdict == "settled" and settlement.order is not None:
            _logger.info("order_settled", **facts, source=source)
            self._changed(settlement.order)
        elif settlement.verdict == "refused":
            _logger.error("payment_refused", **facts, source=source, why=settlement.refusal)


async def apply(
    connection: AsyncConnection, payment: Payment, source: Source, ours: Recipient, now: int
) -> Settlement:
    """Settle within a transaction of the caller's."""
    order = await store.lock_order(connection, payment.order_id)
    known = await store.lock_payment(connection, payment.channel, payment.transaction_id)
    why = refusal(order, payment, ours)
    if order is not None and why is None:
        if known is not None and known.settled and known.order_id == order.order_id:
            return Settlement("already", order)
        if known is None and await _name_transaction(connection, order, payment, now):
            return Settlement("already", order)
        why = await _conflict(connection, order, known, now)
    if order is None or why is not None:
        await store.write_payment(
            connection, known, payment, source=source, refusal=str(why), now=now
        )
        await store.open_case(connection, _case(payment, source, str(why), order), now)
        return Settlement("refused", order, why)
    await store.write_payment(connection, known, payment, source=source, refusal="", now=now)
    return Settlement("settled", await _pay(connection, order, payment, now))


async def _conflict(
    connection: AsyncConnection, order: Order, known: Paid | None, now: int
) -> Refusal | None:
    """Why a payment that fits its order cannot pay it all the same."""
    if known is not None and known.settled:
        return Refusal.OTHER_ORDER
    if order.status in {Status.PAID, Status.REFUNDED}:
        return Refusal.PAID_TWICE
    if order.status is Status.CLOSED and not await _hold_again(connection, order, now):
        return Refusal.PROMO_USED_UP
    return None


async def _pay(connection: AsyncConnection, order: Order, payment: Payment, now: int) -> Order:
    late = order.status is Status.CLOSED
    paid = await store.change_order(
        connection,
        order,
        now,
        status=move(order.status, Move.PAY_LATE if late else Move.PAY),
        transaction_id=payment.transaction_id,
    )
    await grant(connection, paid, now)
    if late:
        detail = "the gateway took the money after the order was closed; it was granted"
        case = Case(PAID_LATE, order.order_id, order.order_id, detail)
        await store.open_case(connection, case, now)
    return paid


def _case(payment: Payment, source: Source, why: str, order: Order | None) -> Case:
    subject = f"{payment.channel}:{payment.transaction_id}:{payment.order_id}"
    return Case(why, subject, payment.order_id, _describe(payment, source, order))


def _describe(payment: Payment, source: Source, order: Order | None) -> str:
    """What a person needs, to compare."""
    said = f"{source} says {yuan(payment.amount)} {payment.currency} on {payment.channel}"
    said += f" to merchant {payment.merchant}, app {payment.app}"
    if order is None:
        return f"{said}; there is no such order"
    ours = f"{yuan(order.amount)} on {order.channel} to merchant {order.merchant}, app {order.app}"
    return f"{said}; the order ({order.status.name.lower()}) wants {ours}"


async def _hold_again(connection: AsyncConnection, order: Order, now: int) -> bool:
    """Whether an order that gave its promotion code back when it closed can have it again."""
    if not order.promo_code:
        return True
    try:
        promo = await promo_uses.lock_promo(connection, order.promo_code)
    except PromoCodeRefused:
        return False  # the code was deleted: a limit that is gone cannot be kept
    # It was valid when it was promised; only the limits are looked at again.
    by_user = await promo_uses.uses_of(connection, promo.code, order.uid)
    room = promo.total_limit is None or promo.used < promo.total_limit
    room_for_user = promo.per_user_limit is None or by_user < promo.per_user_limit
    if room and room_for_user:
        await promo_uses.hold(connection, order, now)
    return room and room_for_user


async def _name_transaction(
    connection: AsyncConnection, order: Order, payment: Payment, now: int
) -> bool:
    """Give a payment that an internal caller told of the transaction that the gateway names.

    Whether the order was paid by such a one: it is the same money, told a second time.
    """
    if not order.transaction_id.startswith(store.PLACEHOLDER):
        return False
    stand_in = await store.lock_payment(connection, order.channel, order.transaction_id)
    if stand_in is None:
        return False
    number = payment.transaction_id
    await store.name_payment(connection, stand_in, number, payment.paid_at)
    await store.change_order(connection, order, now, transaction_id=number)
    return True
