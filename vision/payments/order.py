"""What an order is, how it moves, and when a payment fits it.

The law: an order moves only as the table below says, and never backwards.

    from      move        to
    unpaid    pay         paid       the money came in time
    unpaid    close       closed     it expired, and the gateway will take no money for it any more
    closed    pay late    paid       the gateway took money all the same: grant, and tell a person
    paid      refund all  refunded   everything was given back; less than that leaves it paid

A payment fits an order when amount, currency, merchant, app and channel are the order's own, and
merchant and app are the gateway's too; `refusal` names the first that is not. Nothing is granted
for a payment that does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Final

from vision.payments.errors import OrderNotPayable
from vision.payments.gateway import Channel, Payment
from vision.payments.money import CURRENCY


class Status(IntEnum):
    """The documented numbers; CLOSED is an addition."""

    UNPAID = 0
    PAID = 1
    REFUNDED = 2
    CLOSED = 3


class Move(StrEnum):
    """What can happen to an order."""

    PAY = "pay"
    CLOSE = "close"
    PAY_LATE = "pay late"
    REFUND_ALL = "refund all"


MOVES: Final[Mapping[tuple[Status, Move], Status]] = MappingProxyType(
    {
        (Status.UNPAID, Move.PAY): Status.PAID,
        (Status.UNPAID, Move.CLOSE): Status.CLOSED,
        (Status.CLOSED, Move.PAY_LATE): Status.PAID,
        (Status.PAID, Move.REFUND_ALL): Status.REFUNDED,
    }
)


class Refusal(StrEnum):
    """Why a payment is not applied; the kind of the case that a person looks at."""

    UNKNOWN_ORDER = "unknown_order"
    WRONG_CHANNEL = "wrong_channel"
    WRONG_MERCHANT = "wrong_merchant"
    WRONG_APP = "wrong_app"
    WRONG_CURRENCY = "wrong_currency"
    WRONG_AMOUNT = "wrong_amount"
    PAID_TWICE = "paid_twice"  # another transaction has paid the order
    OTHER_ORDER = "other_order"  # the transaction has paid another order
    PROMO_USED_UP = "promo_used_up"  # paid late, and the code has gone to others


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a payment must have reached: our merchant and app at a gateway."""

    merchant: str
    app: str


@dataclass(frozen=True, slots=True)
class Order:
    """The intent to buy one product. Money in fen, times in ms since the epoch.

    `days` and `tokens` are what the product granted when it was ordered: a product that changes
    later changes no order. `refunded` is what has been given back; `transaction_id` what paid it.
    `checks` counts how often the gateway was asked; `next_check_at` is when it is asked next.
    """

    id: int
    order_id: str
    uid: str
    product_id: str
    product_line: str
    channel: Channel
    price: int
    total_price: int
    amount: int
    promo_code: str
    ext: str
    description: str
    days: int
    tokens: int
    merchant: str
    app: str
    status: Status
    refunded: int
    transaction_id: str
    code_url: str
    fingerprint: str
    checks: int
    next_check_at: int
    expires_at: int
    created_at: int
    updated_at: int


def move(status: Status, what: Move) -> Status:
    """Where an order goes. Raises OrderNotPayable for a move that the table does not have."""
    try:
        return MOVES[status, what]
    except KeyError:
        raise OrderNotPayable(f"an order that is {status.name.lower()} cannot {what}") from None


def refusal(order: Order | None, payment: Payment, ours: Recipient) -> Refusal | None:
    """Why this payment does not fit the order, or None. Says nothing of what was paid before."""
    if order is None:
        return Refusal.UNKNOWN_ORDER
    checks = (
        (payment.channel == order.channel, Refusal.WRONG_CHANNEL),
        (payment.merchant == order.merchant == ours.merchant, Refusal.WRONG_MERCHANT),
        (payment.app == order.app == ours.app, Refusal.WRONG_APP),
        (payment.currency == CURRENCY, Refusal.WRONG_CURRENCY),
        (payment.amount == order.amount, Refusal.WRONG_AMOUNT),
    )
    return next((wrong for fits, wrong in checks if not fits), None)


# A person who scans a code pays within minutes: ask soon, then ever more rarely, until the order
# expires (two hours) and its closing settles the matter.
FIRST_CHECK_MS: Final = 60_000
LONGEST_CHECK_MS: Final = 15 * 60_000


def next_check(checks: int, now: int) -> int:
    """When to ask the gateway again about what is open, after so many times, in ms."""
    return now + min(FIRST_CHECK_MS << min(checks, 10), LONGEST_CHECK_MS)
