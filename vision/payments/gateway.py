"""What a gateway is to the rest of payments: one protocol, and the words it speaks.

The law: money is integer fen, times are milliseconds since the epoch, UTC. What a gateway returns
has been shown to come from it (signature, time, number) before it was parsed. Whether a payment is
*ours* and *right* (order, amount, currency, merchant, app) is not decided here: `Payment` carries
what was said, and `settle` compares. A call that raised GatewayUnavailable may have been carried
out; each may be repeated with the same numbers, and then counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol

# The contract's spelling.
Channel = Literal["tecent-pay", "alipay"]


@dataclass(frozen=True, slots=True)
class Payment:
    """What a gateway says was paid, already verified to come from it."""

    channel: Channel
    order_id: str
    transaction_id: str
    amount: int  # fen: what the order cost, not what was left after the gateway's coupons
    currency: str
    merchant: str
    app: str
    paid_at: int  # ms since the epoch, UTC


@dataclass(frozen=True, slots=True)
class Standing:
    """What a gateway says of an order number. `payment` is there when it is paid or refunded.

    `unknown`: the gateway cannot tell now; ask again. `unpaid` includes a number that it never saw.
    """

    state: Literal["unpaid", "paid", "closed", "refunded", "unknown"]
    payment: Payment | None = None


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """What is to be paid. `expires_at` is in ms since the epoch."""

    order_id: str
    amount: int
    description: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Placement:
    """What to show as a QR code."""

    url: str


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """What is to be given back: `amount` of the `total` that was paid, under our own number."""

    order_id: str
    transaction_id: str
    refund_id: str
    amount: int
    total: int
    reason: str


@dataclass(frozen=True, slots=True)
class RefundStanding:
    """What a gateway says of a refund number; `amount` is None when it does not say.

    `unknown`: it has not seen the number, or cannot tell now.
    """

    refund_id: str
    state: Literal["done", "pending", "failed", "unknown"]
    amount: int | None


@dataclass(frozen=True, slots=True)
class BillLine:
    """One line of the gateway's bill of a day; `amount` is positive for refunds too."""

    order_id: str
    transaction_id: str
    kind: Literal["payment", "refund"]
    amount: int
    refund_id: str | None


@dataclass(frozen=True, slots=True)
class Notification:
    """A gateway's callback, verified and parsed. `id` is the gateway's own; repeats share it.

    `payment` is there for kind `payment`, `refund` for kind `refund`; `other` is to be acknowledged
    and has no effect.
    """

    channel: Channel
    id: str
    kind: Literal["payment", "refund", "other"]
    payment: Payment | None = None
    refund: RefundStanding | None = None
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The HTTP answer to a notification."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Gateway(Protocol):
    """A payment channel. All calls raise GatewayUnavailable and GatewayRefused."""

    @property
    def channel(self) -> Channel:
        """Which of the contract's types it is."""

    @property
    def merchant(self) -> str:
        """Our number there, to compare a payment with."""

    @property
    def app(self) -> str:
        """Our app's number there, to compare a payment with."""

    async def place(self, order: PlaceOrder) -> Placement:
        """Make the order payable; safe to repeat with the same order."""

    async def query(self, order_id: str) -> Standing:
        """What has become of it."""

    async def close(self, order_id: str) -> Standing:
        """Make it unpayable for good: `closed`, or `paid` when it turns out to be paid."""

    async def refund(self, refund: RefundOrder) -> RefundStanding:
        """Give money back; safe to repeat with the same `refund_id`, which refunds once."""

    async def query_refund(self, refund: RefundOrder) -> RefundStanding:
        """What has become of the refund."""

    async def bill(self, day: date) -> Sequence[BillLine]:
        """All that moved on a day (UTC+8, as the gateways count); final from 10 o'clock of the
        next."""

    async def read_notification(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Notification:
        """Verify, then parse. `headers` by any case; `now` in seconds since the epoch.

        Raises NotificationRefused; GatewayUnavailable when the key that signed it is new and
        cannot be fetched now: ask the gateway to send it again.
        """

    def acknowledge(self) -> Acknowledgement:
        """The answer "received": send it after the commit, never before."""

    def refuse(self, message: str, *, retry: bool) -> Acknowledgement:
        """The answer "not received"; `retry` tells an outage here (5xx) from a false message."""

    async def aclose(self) -> None:
        """Close the connections."""
