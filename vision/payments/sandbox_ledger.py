"""What the sandbox remembers of its orders, across restarts.

The law: an order here moves as it does at a gateway: open, then paid or closed, then refunded; a
refund number counts once. Every change is one line appended to a file before it counts, so a server
that was killed finds its "gateway" as it left it. A line is small and goes to the page cache: that
takes microseconds, and the sandbox is for trying out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from vision.payments.errors import GatewayRefused, OrderNotPayable, UnknownOrder
from vision.payments.gateway import PlaceOrder


class SandboxOrder(msgspec.Struct, frozen=True):
    """An order at the sandbox; times in ms since the epoch, money in fen.

    `declined`: the payer has said no once; the order can still be paid. `refunds` by our numbers.
    """

    order_id: str
    amount: int
    description: str
    expires_at: int
    state: Literal["open", "paid", "closed", "refunded"] = "open"
    declined: bool = False
    transaction_id: str = ""
    paid_at: int = 0
    refunds: Mapping[str, int] = {}


class Ledger:
    """All orders of one channel. For one event loop of one process."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; a last line that a kill cut off is dropped."""
        self._path = path
        self._orders: dict[str, SandboxOrder] = {}
        if path.exists():
            whole, _, _ = path.read_bytes().rpartition(b"\n")
            for line in whole.splitlines():
                self._remember(msgspec.json.decode(line, type=SandboxOrder))
            path.write_bytes(whole + b"\n" if whole else b"")

    def orders(self) -> Sequence[SandboxOrder]:
        """The newest first."""
        return list(reversed(self._orders.values()))

    def find(self, order_id: str) -> SandboxOrder | None:
        """The order, if it was placed here."""
        return self._orders.get(order_id)

    def get(self, order_id: str) -> SandboxOrder:
        """The order. Raises UnknownOrder."""
        order = self._orders.get(order_id)
        if order is None:
            raise UnknownOrder(f'the sandbox has no order "{order_id}"')
        return order

    def place(self, placed: PlaceOrder) -> SandboxOrder:
        """Open an order; again with the same content changes nothing.

        Raises GatewayRefused when the number is taken by another content, or no longer open.
        """
        fresh = SandboxOrder(placed.order_id, placed.amount, placed.description, placed.expires_at)
        order = self._orders.get(placed.order_id)
        if order is None:
            return self._change(fresh)
        if order.state != "open":
            raise GatewayRefused(f"the order is {order.state}", gateway_code="ORDER_NOT_OPEN")
        if msgspec.structs.replace(order, declined=False) != fresh:
            raise GatewayRefused("the number is taken", gateway_code="OUT_TRADE_NO_USED")
        return order

    def pay(self, order_id: str, *, now: int, transaction_id: str) -> SandboxOrder:
        """Paid in time. Raises UnknownOrder; OrderNotPayable when it is not open or has expired."""
        order = self.get(order_id)
        if order.state != "open" or now >= order.expires_at:
            state = "expired" if order.state == "open" else order.state
            raise OrderNotPayable(f"the order is {state}")
        return self._pay(order, now, transaction_id)

    def pay_late(self, order_id: str, *, now: int, transaction_id: str) -> SandboxOrder:
        """Paid although it has expired or was closed, as when both happen in one moment.

        Raises UnknownOrder; OrderNotPayable when it is paid.
        """
        order = self.get(order_id)
        if order.state not in {"open", "closed"}:
            raise OrderNotPayable(f"the order is {order.state}")
        return self._pay(order, now, transaction_id)

    def decline(self, order_id: str) -> SandboxOrder:
        """The payer says no. Raises UnknownOrder, OrderNotPayable."""
        order = self.get(order_id)
        if order.state != "open":
            raise OrderNotPayable(f"the order is {order.state}")
        return self._change(msgspec.structs.replace(order, declined=True))

    def close(self, order_id: str) -> SandboxOrder | None:
        """Closed if it was open; as it is otherwise."""
        order = self._orders.get(order_id)
        if order is not None and order.state == "open":
            return self._change(msgspec.structs.replace(order, state="closed"))
        return order

    def refund(self, order_id: str, refund_id: str, amount: int) -> SandboxOrder:
        """Give back, once for each number. Raises GatewayRefused for more than was paid."""
        order = self._orders.get(order_id)
        if order is None or not order.transaction_id:
            raise GatewayRefused("nothing was paid", gateway_code="NOT_PAID")
        if refund_id in order.refunds:
            return order
        refunds = {**order.refunds, refund_id: amount}
        if amount < 1 or sum(refunds.values()) > order.amount:
            raise GatewayRefused("more than was paid", gateway_code="NOT_ENOUGH")
        return self._change(msgspec.structs.replace(order, state="refunded", refunds=refunds))

    def _pay(self, order: SandboxOrder, now: int, transaction_id: str) -> SandboxOrder:
        return self._change(
            msgspec.structs.replace(order, state="paid", paid_at=now, transaction_id=transaction_id)
        )

    def _change(self, order: SandboxOrder) -> SandboxOrder:
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(order) + b"\n")
        self._remember(order)
        return order

    def _remember(self, order: SandboxOrder) -> None:
        self._orders[order.order_id] = order
