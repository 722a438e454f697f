"""Orders, as the handlers call them: make one, show one, close one that nobody paid.

The law: an order is in the database before the gateway hears of it, and only the gateway's answer
is written after; so whatever is cut off, there is no order at a gateway that is unknown here, and
placing the same one again is safe. An order is closed at the gateway first, and here only when the
gateway says that it takes no money for it any more; where it says "paid", the order is settled.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.errors import IdempotencyConflict, InvalidRequest
from vision.payments import promo_uses, store
from vision.payments.database import Database
from vision.payments.entitlement import Entitlement
from vision.payments.errors import GatewayRefused, OrderNotPayable, UnknownOrder
from vision.payments.gateway import Channel, PlaceOrder, Standing
from vision.payments.granting import entitlements_of
from vision.payments.order import Move, Order, Status, move, next_check
from vision.payments.product import Offer, Product, PromoCode, check_offer, check_promo, discount
from vision.payments.product_store import find_product
from vision.payments.settle import Settler, Source
from vision.payments.store import Case, Page

# A refund at the gateway that did not come from here, of an order that was never paid here.
REFUNDED_THERE: Final = "refunded_at_gateway"

_logger = structlog.get_logger("vision.payments")


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """What a client wants to buy, in the documented fields; money in fen."""

    channel: Channel
    uid: str
    product_id: str
    product_line: str
    price: int
    total_price: int
    amount: int
    promo_code: str = ""
    ext: str = ""


class Checkout:
    """The orders of this server. `changed` hears of each that has been closed, after the commit.

    `order_ttl_ms` is how long an order can be paid; `clock` gives ms since the epoch.
    """

    def __init__(
        self,
        *,
        database: Database,
        settler: Settler,
        clock: Callable[[], int],
        changed: Callable[[Order], None],
        order_ttl_ms: int,
    ) -> None:
        self._database = database
        self._settler = settler
        self._clock = clock
        self._changed = changed
        self._ttl_ms = order_ttl_ms

    async def create(self, request: OrderRequest, key: str | None = None) -> Order:
        """Make an order and place it at its gateway; the order, with its `code_url`.

        With a key (of this client, any text) that was used before, it is the order of then. Raises
        `UnknownProduct`, `PriceMismatch`, `PromoCodeRefused`, `InvalidRequest`,
        `IdempotencyConflict`, `OrderNotPayable`, `GatewayUnavailable`, `GatewayRefused` and
        `StoreUnavailable`.
        """
        _check_texts(request)
        self._settler.gateway(request.channel)
        hashed = None if key is None else hashlib.sha256(key.encode()).hexdigest()
        order_id = secrets.token_hex(16)

        async def act(connection: AsyncConnection) -> Order:
            return await self._write(connection, request, order_id, hashed)

        order = await self._database.write(act)
        return order if order.code_url else await self._place(order)

    async def _write(
        self, connection: AsyncConnection, request: OrderRequest, order_id: str, key: str | None
    ) -> Order:
        now = self._clock()
        if key is not None:
            before = await store.find_by_key(connection, key)
            if before is not None:
                return _same(before, request)
        product = await find_product(connection, request.product_id)
        promo = await _usable(connection, request, product, now)
        offer = Offer(request.product_line, request.price, request.total_price, request.amount)
        check_offer(offer, product, promo)
        recipient = self._settler.recipient(request.channel)
        order = Order(
            id=0,
            order_id=order_id,
            uid=request.uid,
            product_id=product.product_id,
            product_line=product.product_line,
            channel=request.channel,
            price=product.price,
            total_price=product.total_price,
            amount=product.total_price - discount(promo, product.total_price),
            promo_code=request.promo_code,
            ext=request.ext,
            description=product.name,
            days=product.days,
            tokens=product.tokens,
            merchant=recipient.merchant,
            app=recipient.app,
            status=Status.UNPAID,
            refunded=0,
            transaction_id="",
            code_url="",
            fingerprint=_fingerprint(request),
            checks=0,
            next_check_at=next_check(0, now),
            expires_at=now + self._ttl_ms,
            created_at=now,
            updated_at=now,
        )
        order = await store.insert_order(connection, order, key)
        if promo is not None:
            await promo_uses.hold(connection, order, now)
        return order

    async def _place(self, order: Order) -> Order:
        if order.status is not Status.UNPAID:
            raise OrderNotPayable(f"the order is {order.status.name.lower()}")
        gateway = self._settler.gateway(order.channel)
        wanted = PlaceOrder(order.order_id, order.amount, order.description, order.expires_at)
        try:
            placement = await gateway.place(wanted)
        except GatewayRefused:
            # An earlier try may have arrived, so it is closed as any other order: at the gateway
            # first, by the reconciler, which now need not wait for its two hours.
            await self._change(order.order_id, expires_at=self._clock(), next_check_at=0)
            raise
        return await self._change(order.order_id, code_url=placement.url)

    async def _change(self, order_id: str, **values: object) -> Order:
        async def act(connection: AsyncConnection) -> Order:
            order = await _locked(connection, order_id)
            return await store.change_order(connection, order, self._clock(), **values)

        return await self._database.write(act)

    async def find(self, order_id: str) -> Order:
        """One order. Raises `UnknownOrder` and `StoreUnavailable`."""

        async def act(connection: AsyncConnection) -> Order | None:
            return await store.find_order(connection, order_id)

        order = await self._database.read(act)
        if order is None:
            raise UnknownOrder(f'there is no order "{order_id}"', path="orderId")
        return order

    async def page(
        self, page: int, size: int, uid: str | None = None, product_line: str | None = None
    ) -> Page:
        """Orders, newest first, `page` from 1. Raises `StoreUnavailable`."""

        async def act(connection: AsyncConnection) -> Page:
            return await store.list_orders(connection, uid, product_line, page, size)

        return await self._database.read(act)

    async def entitlements(self, uid: str) -> list[Entitlement]:
        """What a user may use, by product line. Raises `StoreUnavailable`."""

        async def act(connection: AsyncConnection) -> list[Entitlement]:
            return await entitlements_of(connection, uid)

        return await self._database.read(act)

    async def look(self, order: Order, source: Source) -> None:
        """Ask the gateway what has become of an unpaid order, and do what follows from it.

        Raises `GatewayUnavailable`, `GatewayRefused` and `StoreUnavailable`.
        """
        gateway = self._settler.gateway(order.channel)
        standing = await gateway.query(order.order_id)
        if standing.state == "unpaid" and self._clock() >= order.expires_at:
            standing = await gateway.close(order.order_id)
        await self._follow(order, standing, source)

    async def _follow(self, order: Order, standing: Standing, source: Source) -> None:
        if standing.payment is not None:
            # A gateway calls an order refunded when any part was given back: it was paid first.
            await self._settler.settle(standing.payment, source)
            if standing.state == "refunded":
                await self._note_refund(order.order_id)
        elif standing.state in {"closed", "refunded"}:
            await self._close(order.order_id, refunded=standing.state == "refunded")

    async def _note_refund(self, order_id: str) -> None:
        """A person finds out how much was given back there, and takes it back here."""
        detail = "the gateway has given back money of this order that was not asked for here"
        case = Case(REFUNDED_THERE, order_id, order_id, detail)

        async def act(connection: AsyncConnection) -> None:
            await store.open_case(connection, case, self._clock())

        await self._database.write(act)

    async def _close(self, order_id: str, *, refunded: bool) -> None:
        """Close an order that the gateway has closed, and give its promotion code back."""

        async def act(connection: AsyncConnection) -> Order | None:
            order = await _locked(connection, order_id)
            if order.status is not Status.UNPAID:
                return None  # it was paid meanwhile, or another process was first
            now = self._clock()
            if refunded:
                detail = "the gateway has given back money that was never recorded here"
                case = Case(REFUNDED_THERE, order_id, order_id, detail)
                await store.open_case(connection, case, now)
            closed = move(order.status, Move.CLOSE)
            order = await store.change_order(connection, order, now, status=closed)
            if order.promo_code:
                await promo_uses.release(connection, order)
            return order

        order = await self._database.write(act)
        if order is not None:
            _logger.info("order_closed", order_id=order_id)
            self._changed(order)


async def _locked(connection: AsyncConnection, order_id: str) -> Order:
    order = await store.lock_order(connection, order_id)
    if order is None:
        raise UnknownOrder(f'there is no order "{order_id}"', path="orderId")
    return order


async def _usable(
    connection: AsyncConnection, request: OrderRequest, product: Product, now: int
) -> PromoCode | None:
    if not request.promo_code:
        return None
    promo = await promo_uses.lock_promo(connection, request.promo_code)
    by_user = await promo_uses.uses_of(connection, promo.code, request.uid)
    check_promo(promo, product, by_user, now)
    return promo


def _same(order: Order, request: OrderRequest) -> Order:
    if order.fingerprint != _fingerprint(request):
        raise IdempotencyConflict("the Idempotency-Key was used before, with another body")
    return order


def _fingerprint(request: OrderRequest) -> str:
    return hashlib.sha256(json.dumps(asdict(request), sort_keys=True).encode()).hexdigest()


def _check_texts(request: OrderRequest) -> None:
    """MySQL takes no account of spaces at the end: "bob " would be bob."""
    for path, text in (("uid", request.uid), ("promoCode", request.promo_code)):
        if text != text.strip():
            raise InvalidRequest("white space at the beginning or the end", path=path)
