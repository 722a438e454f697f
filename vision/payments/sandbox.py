"""A gateway for trying out: the code leads to a cashier page of this server.

The law: to the rest of payments it is a gateway like the real ones; its notifications are signed
and go to the real endpoints, where they are verified by the real code. No money moves, so a server
in production mode does not have it. It plays one channel, under that channel's own forms; each
server process has its own, in its data folder.

The cashier page is outside: it shows `orders()`, calls `pay`, `decline` or `pay_late`, and posts
what `callback` gives to our own endpoint of this channel's notifications.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Final
from urllib.parse import quote

from vision.payments import alipay, alipay_wire, wechat, wechat_wire
from vision.payments.alipay_signing import notified_parameters
from vision.payments.errors import NotificationRefused, OrderNotPayable
from vision.payments.gateway import (
    Acknowledgement,
    BillLine,
    Channel,
    Notification,
    Payment,
    Placement,
    PlaceOrder,
    RefundOrder,
    RefundStanding,
    Standing,
)
from vision.payments.moments import beijing_day, now_ms
from vision.payments.money import CURRENCY
from vision.payments.sandbox_callbacks import (
    KEY_ID,
    Callback,
    SandboxKeys,
    alipay_paid,
    keep_keys,
    wechat_paid,
)
from vision.payments.sandbox_ledger import Ledger, SandboxOrder
from vision.payments.wechat_signing import check_seal, read_seal

MERCHANT: Final = "sandbox-merchant"
APP: Final = "sandbox-app"


class SandboxGateway:
    """One channel of the sandbox; see `gateway.Gateway`. For one event loop."""

    merchant = MERCHANT
    app = APP

    def __init__(
        self, channel: Channel, cashier_url: str, ledger: Ledger, keys: SandboxKeys
    ) -> None:
        """`cashier_url` is the cashier page's address, without a query."""
        self.channel: Channel = channel
        self._cashier_url = cashier_url
        self._ledger = ledger
        self._keys = keys

    async def place(self, order: PlaceOrder) -> Placement:
        """Make the order payable on the cashier page."""
        self._ledger.place(order)
        query = f"channel={self.channel}&orderId={quote(order.order_id, safe='')}"
        return Placement(f"{self._cashier_url}?{query}")

    async def query(self, order_id: str) -> Standing:
        """What has become of the order."""
        return self._standing(self._ledger.find(order_id))

    async def close(self, order_id: str) -> Standing:
        """Close the order, or say how it stands; one that was never placed counts as closed."""
        order = self._ledger.close(order_id)
        return Standing("closed") if order is None else self._standing(order)

    async def refund(self, refund: RefundOrder) -> RefundStanding:
        """Give back at once."""
        order = self._ledger.refund(refund.order_id, refund.refund_id, refund.amount)
        return RefundStanding(refund.refund_id, "done", order.refunds[refund.refund_id])

    async def query_refund(self, refund: RefundOrder) -> RefundStanding:
        """What has become of the refund."""
        order = self._ledger.find(refund.order_id)
        amount = None if order is None else order.refunds.get(refund.refund_id)
        if amount is None:
            return RefundStanding(refund.refund_id, "unknown", None)
        return RefundStanding(refund.refund_id, "done", amount)

    async def bill(self, day: date) -> Sequence[BillLine]:
        """What was paid on this day, and what of that was given back, whenever that was."""
        lines: list[BillLine] = []
        for order in self._ledger.orders():
            if order.transaction_id and beijing_day(order.paid_at) == day:
                lines += _lines(order)
        return lines

    async def read_notification(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Notification:
        """Verified and read by the real channel's code, under the sandbox's keys."""
        public = self._keys.private.public_key()
        if self.channel == "alipay":
            return alipay_wire.read_notification(notified_parameters(body, [public]))
        seal = read_seal(headers, now)
        if seal.serial != KEY_ID:
            raise NotificationRefused("Wechatpay-Serial is not the sandbox's")
        check_seal(seal, body, public)
        return wechat_wire.read_event(body, self._keys.api_v3_key)

    def acknowledge(self) -> Acknowledgement:
        """As the real channel wants it."""
        return alipay.received() if self.channel == "alipay" else wechat.received()

    def refuse(self, message: str, *, retry: bool) -> Acknowledgement:
        """As the real channel wants it."""
        refusal = alipay.not_received if self.channel == "alipay" else wechat.not_received
        return refusal(message, retry=retry)

    async def aclose(self) -> None:
        """Nothing is open."""

    def orders(self) -> Sequence[SandboxOrder]:
        """All orders, the newest first."""
        return self._ledger.orders()

    def pay(self, order_id: str, now: float) -> SandboxOrder:
        """The payer pays. Raises UnknownOrder, OrderNotPayable."""
        number = _transaction_id()
        return self._ledger.pay(order_id, now=now_ms(now), transaction_id=number)

    def pay_late(self, order_id: str, now: float) -> SandboxOrder:
        """The payer pays an order that has expired or was closed. Raises as `pay`."""
        number = _transaction_id()
        return self._ledger.pay_late(order_id, now=now_ms(now), transaction_id=number)

    def decline(self, order_id: str) -> SandboxOrder:
        """The payer says no; like a gateway, the sandbox tells nobody. Raises as `pay`."""
        return self._ledger.decline(order_id)

    def callback(self, order_id: str, now: float) -> Callback:
        """The notification of a payment, to be posted now; it may be asked for again.

        Raises UnknownOrder; OrderNotPayable when nothing was paid.
        """
        order = self._ledger.get(order_id)
        if not order.transaction_id:
            raise OrderNotPayable(f"the order is {order.state}: there is nothing to tell")
        payment = self._payment(order)
        if self.channel == "alipay":
            return alipay_paid(payment, self._keys, now=now)
        return wechat_paid(payment, self._keys, now=now, nonce=secrets.token_hex(16))

    def _standing(self, order: SandboxOrder | None) -> Standing:
        if order is None or order.state == "open":
            return Standing("unpaid")
        if order.state == "closed":
            return Standing("closed")
        return Standing(order.state, self._payment(order))

    def _payment(self, order: SandboxOrder) -> Payment:
        return Payment(
            channel=self.channel,
            order_id=order.order_id,
            transaction_id=order.transaction_id,
            amount=order.amount,
            currency=CURRENCY,
            merchant=self.merchant,
            app=self.app,
            paid_at=order.paid_at,
        )


async def open_sandbox(
    folder: Path, cashier_url: str, channels: Sequence[Channel]
) -> dict[Channel, SandboxGateway]:
    """The sandbox of these channels, with what this folder remembers. Raises SettingError."""
    keys = await asyncio.to_thread(keep_keys, folder)
    return {
        channel: SandboxGateway(
            channel, cashier_url, Ledger(folder / f"sandbox-{channel}.jsonl"), keys
        )
        for channel in channels
    }


def _lines(order: SandboxOrder) -> list[BillLine]:
    paid = BillLine(order.order_id, order.transaction_id, "payment", order.amount, None)
    refunds = [
        BillLine(order.order_id, order.transaction_id, "refund", amount, refund_id)
        for refund_id, amount in order.refunds.items()
    ]
    return [paid, *refunds]


def _transaction_id() -> str:
    return f"sandbox{secrets.token_hex(8)}"
