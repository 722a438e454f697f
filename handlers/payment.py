"""Orders: make one, show them, their QR code, give money back, and what a user may use.

The documented fields keep their names; money is integer fen. Times are ISO 8601 in UTC with
milliseconds, as documented.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any, Final

import segno

from handlers.api import ApiHandler
from vision.access import Role
from vision.errors import InvalidRequest
from vision.payments.checkout import OrderRequest
from vision.payments.entitlement import Entitlement
from vision.payments.errors import OrderNotPayable
from vision.payments.order import Order, Status
from vision.payments.refunds import RefundRequest

# As documented for `pageSize`.
MAX_PAGE: Final = 100
USUAL_PAGE: Final = 20

# Module size of the SVG, in its own units; it scales.
QR_SCALE: Final = 8


class OrderCreateHandler(ApiHandler):
    """POST /api/payment/order/create: an order, placed at its gateway."""

    async def post(self) -> None:
        body = self.json_body("order-create")
        request = OrderRequest(
            channel=body["type"],
            uid=body["uid"],
            product_id=body["productId"],
            product_line=body["productLine"],
            price=int(body["price"]),
            total_price=int(body["totalPrice"]),
            amount=int(body["amount"]),
            promo_code=body.get("promoCode") or "",
            ext=body.get("ext") or "",
        )
        key = self.idempotency_key()
        scoped = None if key is None else f"{key.owner} {key.key}"
        order = await self.services.payments.checkout.create(request, scoped)
        self.answer({"url": order.code_url, "orderId": order.order_id})


class OrderHandler(ApiHandler):
    """GET /api/payment/order/query-by-id."""

    async def get(self) -> None:
        order = await self.services.payments.checkout.find(self.query_text("orderId"))
        self.answer({**documented(order), **added(order), "url": order.code_url})


class OrdersHandler(ApiHandler):
    """GET /api/payment/order/query: newest first."""

    async def get(self) -> None:
        page, size = self.query_count("page", 1), self.query_count("pageSize", USUAL_PAGE)
        if page < 1:
            raise InvalidRequest("must be at least 1", path="page")
        if not 1 <= size <= MAX_PAGE:
            raise InvalidRequest(f"must be from 1 to {MAX_PAGE}", path="pageSize")
        found = await self.services.payments.checkout.page(
            page, size, self.query_optional("uid"), self.query_optional("productLine")
        )
        orders = [{"id": order.id, **documented(order), **added(order)} for order in found.orders]
        self.answer_json({"statusCode": 200, "message": "", "data": orders, "total": found.total})


class QrCodeHandler(ApiHandler):
    """GET /api/payment/order/qrcode: what the buyer scans, as SVG."""

    async def get(self) -> None:
        order = await self.services.payments.checkout.find(self.query_text("orderId"))
        if order.status is not Status.UNPAID or not order.code_url:
            raise OrderNotPayable(f"the order is {order.status.name.lower()}", path="orderId")
        picture = io.BytesIO()
        segno.make(order.code_url, micro=False).save(picture, kind="svg", scale=QR_SCALE)
        self.set_header("Content-Type", "image/svg+xml")
        self.set_header("Cache-Control", "no-store")
        self.finish(picture.getvalue())


class RefundHandler(ApiHandler):
    """POST /api/payment/refund: give back all, or part, of a payment."""

    role = Role.ADMIN

    async def post(self) -> None:
        body = self.json_body("refund")
        amount = body.get("amount")
        refund = await self.services.payments.refunds.refund(
            RefundRequest(
                order_id=body["orderId"],
                amount=None if amount is None else int(amount),
                reason=body.get("reason", ""),
                refund_id=body.get("refundId"),
                transaction_id=body.get("transactionId"),
            )
        )
        self.answer(
            {
                "refundId": refund.refund_id,
                "orderId": refund.order_id,
                "amount": refund.amount,
                "state": refund.state,
            }
        )


class CasesHandler(ApiHandler):
    """GET /api/payment/cases: what a person has to look at, the oldest first."""

    role = Role.ADMIN

    async def get(self) -> None:
        cases = await self.services.payments.cases()
        self.answer(
            [{"kind": each.kind, "orderId": each.order_id, "detail": each.detail} for each in cases]
        )


class EntitlementsHandler(ApiHandler):
    """GET /api/payment/entitlements: what is left to a user, by product line."""

    async def get(self) -> None:
        found = await self.services.payments.checkout.entitlements(self.query_text("uid"))
        now = self.services.payments.clock()
        self.answer([entitled(each, now) for each in found])


def documented(order: Order) -> dict[str, Any]:
    """The documented fields of an order."""
    return {
        "status": order.status.value,
        "type": order.channel,
        "price": order.price,
        "totalPrice": order.total_price,
        "uid": order.uid,
        "amount": order.amount,
        "productId": order.product_id,
        "promoCode": order.promo_code,
        "productLine": order.product_line,
        "orderId": order.order_id,
        "updateTime": iso(order.updated_at),
        "createTime": iso(order.created_at),
    }


def added(order: Order) -> dict[str, Any]:
    """What the document does not have."""
    return {"refunded": order.refunded, "expireTime": iso(order.expires_at), "ext": order.ext}


def entitled(entitlement: Entitlement, now: int) -> dict[str, Any]:
    """One product line of a user."""
    return {
        "productLine": entitlement.product_line,
        "active": entitlement.active(now),
        "endTime": iso(entitlement.ends_at) if entitlement.ends_at else None,
        "tokens": entitlement.tokens,
        "tokensLeft": entitlement.tokens_left,
    }


def iso(moment: int) -> str:
    """Milliseconds since the epoch as `2023-06-01T02:35:59.553Z`."""
    text = datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
