"""The parts of payments put together on a database, with a gateway that does as a test says.

The law: the database is real; the gateway is the test's own, keeps what it was asked for, and says
what it was told to say. Time stands still until the test moves it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from sqlalchemy import func, select, text

from vision.payments import migrate, product_store, store, tables
from vision.payments.checkout import OrderRequest
from vision.payments.database import Database
from vision.payments.errors import GatewayUnavailable, NotificationRefused
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
from vision.payments.order import Order
from vision.payments.product import Product, PromoCode
from vision.payments.service import assemble
from vision.payments.store import Case

START_MS = 1_700_000_000_000
TTL_MS = 2 * 60 * 60 * 1000

MONTH = Product("month", "line", "A month", price=100, total_price=1200, days=30)
TOKENS = Product("tokens", "line", "Tokens", price=500, total_price=500, tokens=1000)


@dataclass
class ScriptedGateway:
    """A gateway that knows what was placed, and pays, closes and refunds as it is told."""

    channel: Channel = "alipay"
    merchant: str = "merchant-1"
    app: str = "app-1"
    placed: list[PlaceOrder] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    paid: dict[str, Payment] = field(default_factory=dict)
    refunds: list[RefundOrder] = field(default_factory=list)
    lines: list[BillLine] = field(default_factory=list)
    refund_state: str = "done"
    # What a notification turns out to be.
    says: Notification | Exception = field(
        default_factory=lambda: NotificationRefused("there is none")
    )
    # Called by the name of a call before it is carried out; may raise, or kill the process.
    before: Callable[[str], None] = lambda _: None
    after: Callable[[str], None] = lambda _: None

    async def place(self, order: PlaceOrder) -> Placement:
        self.before("place")
        self.placed.append(order)
        self.after("place")
        return Placement(f"https://pay.example/{order.order_id}")

    async def query(self, order_id: str) -> Standing:
        self.before("query")
        if order_id in self.paid:
            return Standing("paid", self.paid[order_id])
        return Standing("closed" if order_id in self.closed else "unpaid")

    async def close(self, order_id: str) -> Standing:
        self.before("close")
        if order_id in self.paid:
            return Standing("paid", self.paid[order_id])
        self.closed.append(order_id)
        self.after("close")
        return Standing("closed")

    async def refund(self, refund: RefundOrder) -> RefundStanding:
        self.before("refund")
        if refund.refund_id not in {each.refund_id for each in self.refunds}:
            self.refunds.append(refund)
        self.after("refund")
        return await self.query_refund(refund)

    async def query_refund(self, refund: RefundOrder) -> RefundStanding:
        self.before("query_refund")
        if refund.refund_id in {each.refund_id for each in self.refunds}:
            state: Any = self.refund_state
            return RefundStanding(refund.refund_id, state, refund.amount)
        return RefundStanding(refund.refund_id, "unknown", None)

    async def bill(self, day: date) -> Sequence[BillLine]:
        self.before("bill")
        return self.lines

    async def read_notification(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Notification:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def acknowledge(self) -> Acknowledgement:
        return Acknowledgement(200, {}, b"success")

    def refuse(self, message: str, *, retry: bool) -> Acknowledgement:
        return Acknowledgement(500 if retry else 400, {}, message.encode())

    async def aclose(self) -> None:
        pass


def unavailable(*names: str) -> Callable[[str], None]:
    """A step at which the gateway does not answer."""

    def step(name: str) -> None:
        if name in names:
            raise GatewayUnavailable(f"no answer to {name}")

    return step


class Shop:
    """All parts on one database; `now` is their time in ms."""

    def __init__(self, url: str) -> None:
        self.now = START_MS
        self.changes: list[Order] = []
        # Called with each change, after it was noted; may kill the process.
        self.heard: Callable[[Order], None] = lambda _: None
        self.database = Database(url)
        self.gateway = ScriptedGateway()
        self.payments = assemble(
            database=self.database,
            gateways={"alipay": self.gateway},
            clock=self.clock,
            changed=self._changed,
            order_ttl_ms=TTL_MS,
            holder=secrets.token_hex(8),
        )
        self.settler = self.payments.settler
        self.checkout = self.payments.checkout
        self.refunds = self.payments.refunds
        self.internal = self.payments.internal

    def _changed(self, order: Order) -> None:
        self.changes.append(order)
        self.heard(order)

    def clock(self) -> int:
        return self.now

    async def open(self, *promo_codes: PromoCode) -> None:
        """Make the tables, and put what is sold into them."""
        await migrate.upgrade(self.database)
        await self.sell((MONTH, TOKENS), promo_codes)

    async def sell(
        self, products: Sequence[Product] = (), promo_codes: Sequence[PromoCode] = ()
    ) -> None:
        await self.database.write(
            lambda connection: product_store.save(connection, products, promo_codes, self.now)
        )

    async def order(self, product: Product = MONTH, uid: str = "u1", **more: Any) -> Order:
        """Make an order with the right numbers, unless they are given."""
        return await self.checkout.create(request(product, uid, **more))

    async def cases(self) -> list[Case]:
        return await self.database.read(store.list_cases)

    async def count(self, name: str) -> int:
        table = tables.metadata.tables[name]
        query = select(func.count()).select_from(table)
        return int(await self.database.read(lambda connection: connection.scalar(query)) or 0)

    async def column(self, name: str, column: str) -> list[Any]:
        table = tables.metadata.tables[name]

        async def act(connection: Any) -> list[Any]:
            return list((await connection.execute(select(table.c[column]))).scalars())

        return await self.database.read(act)

    async def close(self) -> None:
        await self.database.close()


def request(product: Product = MONTH, uid: str = "u1", **more: Any) -> OrderRequest:
    """What a client sends that knows the prices."""
    wanted = OrderRequest(
        channel="alipay",
        uid=uid,
        product_id=product.product_id,
        product_line=product.product_line,
        price=product.price,
        total_price=product.total_price,
        amount=product.total_price,
    )
    return replace(wanted, **more)


def payment(order: Order, transaction_id: str = "t1", **more: Any) -> Payment:
    """What a gateway says when this order was paid, unless something else is given."""
    said = Payment(
        channel=order.channel,
        order_id=order.order_id,
        transaction_id=transaction_id,
        amount=order.amount,
        currency="CNY",
        merchant=order.merchant,
        app=order.app,
        paid_at=START_MS + 1000,
    )
    return replace(said, **more)


ORPHANS = text(
    "SELECT COUNT(*) FROM orders o LEFT JOIN grants g ON g.order_id = o.order_id"
    " LEFT JOIN payments p ON p.order_id = o.order_id AND p.refusal = ''"
    " WHERE (o.status IN (1, 2)) <> (g.order_id IS NOT NULL)"
    " OR (o.status IN (1, 2)) <> (p.id IS NOT NULL)"
)


async def orphans(database: Database) -> int:
    """How many orders are paid without a grant and a payment, or the other way round."""

    async def act(connection: Any) -> int:
        return int((await connection.execute(ORPHANS)).scalar_one())

    return await database.read(act)
