"""What is sold: products and promotion codes, read by clients, changed by admins."""

from __future__ import annotations

from typing import Any

from handlers.api import ApiHandler
from handlers.payment import iso
from vision.access import Role
from vision.errors import InvalidRequest
from vision.payments.product import Product, PromoCode
from vision.payments.products_file import goods_of


class ProductsHandler(ApiHandler):
    """GET and POST /api/payment/products."""

    async def authenticate(self) -> str:
        authorization = self.request.headers.get("Authorization")
        role = Role.CLIENT if self.request.method == "GET" else Role.ADMIN
        return self.services.keys.check(authorization, role)

    async def get(self) -> None:
        products = await self.services.payments.products()
        self.answer([shown(product) for product in products if product.active])

    async def post(self) -> None:
        """The form of the products file, in JSON: what has the same name is replaced."""
        document = self.json_body("products")
        try:
            goods = goods_of(document)
        except ValueError as error:
            raise InvalidRequest(str(error), path="promo_codes") from None
        await self.services.payments.save(list(goods.products), list(goods.promo_codes))
        self.answer({"products": len(goods.products), "promoCodes": len(goods.promo_codes)})


class PromoCodesHandler(ProductsHandler):
    """GET and POST /api/payment/promo-codes: clients ask about one that they know."""

    async def get(self) -> None:
        code = self.query_text("code")
        found = [each for each in await self.services.payments.promo_codes() if each.code == code]
        if not found:
            raise InvalidRequest(f'there is no promotion code "{code}"', path="code")
        self.answer(shown_code(found[0]))


def shown(product: Product) -> dict[str, Any]:
    """A product, as clients see it."""
    return {
        "productId": product.product_id,
        "productLine": product.product_line,
        "name": product.name,
        "price": product.price,
        "totalPrice": product.total_price,
        "days": product.days,
        "tokens": product.tokens,
    }


def shown_code(promo: PromoCode) -> dict[str, Any]:
    """A promotion code, as clients see it."""
    return {
        "promoCode": promo.code,
        "kind": promo.kind,
        "value": promo.value,
        "startTime": iso(promo.starts_at) if promo.starts_at else None,
        "endTime": None if promo.ends_at is None else iso(promo.ends_at),
        "productId": promo.product_id,
        "active": promo.active,
    }
