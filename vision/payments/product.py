"""What is sold, what a promotion code takes off, and what an order must therefore cost.

The law: prices come from here and never from a client; what the client sends is only compared. A
percentage takes whole fen off, rounded down (so never more than was promised), and no code brings
an amount below one fen, because no gateway takes an order of nothing. A code is counted when the
order is made, and is free again when the order closes unpaid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vision.errors import InvalidRequest
from vision.payments.errors import PriceMismatch, PromoCodeRefused
from vision.payments.money import LEAST_AMOUNT, share, yuan


@dataclass(frozen=True, slots=True)
class Product:
    """`price` is that of one unit, `total_price` that of the product as it is sold, in fen.

    It grants `days` of access, or `tokens`, or both, within its product line.
    """

    product_id: str
    product_line: str
    name: str
    price: int
    total_price: int
    days: int = 0
    tokens: int = 0
    active: bool = True


@dataclass(frozen=True, slots=True)
class PromoCode:
    """`value` is in percent (1 to 100) or in fen. A limit or an end of None means there is none.

    `starts_at` and `ends_at` are in ms since the epoch, the end not included. With `product_id` the
    code is for that product only. `used` is the number of orders that hold or have used it.
    """

    code: str
    kind: Literal["percentage", "fixed"]
    value: int
    starts_at: int = 0
    ends_at: int | None = None
    total_limit: int | None = None
    per_user_limit: int | None = None
    product_id: str | None = None
    active: bool = True
    used: int = 0


@dataclass(frozen=True, slots=True)
class Offer:
    """What the client believes: its numbers, to be compared with ours."""

    product_line: str
    price: int
    total_price: int
    amount: int


def discount(promo: PromoCode | None, total: int) -> int:
    """What the code takes off a total, in fen; at least one fen is left to pay."""
    if promo is None:
        return 0
    off = promo.value if promo.kind == "fixed" else share(total, promo.value, 100)
    return max(0, min(off, total - LEAST_AMOUNT))


def check_promo(promo: PromoCode, product: Product, used_by_user: int, now: int) -> None:
    """Whether one more order of this user may use the code. Raises PromoCodeRefused."""
    ended = promo.ends_at is not None and now >= promo.ends_at
    used_up = promo.total_limit is not None and promo.used >= promo.total_limit
    enough = promo.per_user_limit is not None and used_by_user >= promo.per_user_limit
    reasons = (
        (not promo.active, "is not valid"),
        (now < promo.starts_at, "is not valid yet"),
        (ended, "has expired"),
        (promo.product_id not in (None, product.product_id), "is for another product"),
        (used_up, "has been used as often as it may be"),
        (enough, "has been used by this user as often as one user may"),
    )
    for refused, why in reasons:
        if refused:
            raise PromoCodeRefused(f'the code "{promo.code}" {why}', path="promoCode")


def check_offer(offer: Offer, product: Product, promo: PromoCode | None) -> None:
    """Compare what the client sent with what the product costs.

    Raises PriceMismatch that names the field and the expected value, InvalidRequest for a product
    line that is not the product's.
    """
    if offer.product_line != product.product_line:
        expected = f'the product belongs to the line "{product.product_line}"'
        raise InvalidRequest(expected, path="productLine")
    amount = product.total_price - discount(promo, product.total_price)
    for path, given, ours in (
        ("price", offer.price, product.price),
        ("totalPrice", offer.total_price, product.total_price),
        ("amount", offer.amount, amount),
    ):
        if given != ours:
            expected = f"expected {ours} fen ({yuan(ours)} yuan), not {given}"
            raise PriceMismatch(expected, path=path)
