"""An order costs what the table and the code say, whatever the client believes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from vision.errors import InvalidRequest
from vision.payments.errors import PriceMismatch, PromoCodeRefused
from vision.payments.product import (
    Offer,
    Product,
    PromoCode,
    check_offer,
    check_promo,
    discount,
)

PRODUCT = Product("p1", "line", "A product", price=100, total_price=1200, days=30)
OFFER = Offer("line", 100, 1200, 1200)
CODE = PromoCode("CODE", "percentage", 20, starts_at=10, ends_at=20)


@given(st.sampled_from(["percentage", "fixed"]), st.integers(1, 10**10), st.integers(1, 10**10))
def test_something_is_always_left_to_pay_and_never_more_than_the_total(
    kind: Any, value: int, total: int
) -> None:
    promo = PromoCode("C", kind, min(value, 100) if kind == "percentage" else value)

    assert 1 <= total - discount(promo, total) <= total


@pytest.mark.parametrize(
    ("promo", "total", "off"),
    [
        (PromoCode("C", "percentage", 20), 1200, 240),
        (PromoCode("C", "percentage", 33), 100, 33),
        (PromoCode("C", "percentage", 33), 10, 3),
        (PromoCode("C", "percentage", 100), 1200, 1199),
        (PromoCode("C", "fixed", 200), 1200, 200),
        (PromoCode("C", "fixed", 5000), 1200, 1199),
        (PromoCode("C", "fixed", 5), 1, 0),
        (None, 1200, 0),
    ],
)
def test_what_a_code_takes_off(promo: PromoCode | None, total: int, off: int) -> None:
    assert discount(promo, total) == off


@pytest.mark.parametrize(
    ("offer", "message"),
    [
        (replace(OFFER, price=1), "price: expected 100 fen (1.00 yuan), not 1"),
        (replace(OFFER, total_price=1), "totalPrice: expected 1200 fen (12.00 yuan), not 1"),
        (replace(OFFER, amount=1201), "amount: expected 1200 fen (12.00 yuan), not 1201"),
    ],
)
def test_a_difference_names_the_field_and_the_expected_value(offer: Offer, message: str) -> None:
    with pytest.raises(PriceMismatch) as refused:
        check_offer(offer, PRODUCT, None)

    assert refused.value.message == message


def test_what_agrees_is_taken() -> None:
    check_offer(OFFER, PRODUCT, None)
    check_offer(replace(OFFER, amount=960), PRODUCT, CODE)


def test_another_product_line_is_refused() -> None:
    with pytest.raises(InvalidRequest, match='productLine: the product belongs to the line "line"'):
        check_offer(replace(OFFER, product_line="other"), PRODUCT, None)


@pytest.mark.parametrize(
    ("code", "by_user", "now", "why"),
    [
        (replace(CODE, active=False), 0, 10, "is not valid"),
        (CODE, 0, 9, "is not valid yet"),
        (CODE, 0, 20, "has expired"),
        (replace(CODE, product_id="p2"), 0, 10, "is for another product"),
        (replace(CODE, total_limit=5, used=5), 0, 10, "as often as it may be"),
        (replace(CODE, total_limit=0), 0, 10, "as often as it may be"),
        (replace(CODE, per_user_limit=1), 1, 10, "as often as one user may"),
    ],
)
def test_a_code_is_refused_with_the_reason(
    code: PromoCode, by_user: int, now: int, why: str
) -> None:
    with pytest.raises(PromoCodeRefused, match=f'promoCode: the code "CODE" .*{why}'):
        check_promo(code, PRODUCT, by_user, now)


def test_a_code_is_valid_from_its_beginning_until_just_before_its_end() -> None:
    last = replace(CODE, product_id="p1", total_limit=5, used=4, per_user_limit=2)
    check_promo(last, PRODUCT, 1, 10)
    check_promo(last, PRODUCT, 1, 19)
