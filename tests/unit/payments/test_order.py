"""An order moves as its table says, and a payment fits it in every respect or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from vision.payments.errors import OrderNotPayable
from vision.payments.gateway import Payment
from vision.payments.order import (
    LONGEST_CHECK_MS,
    MOVES,
    Move,
    Order,
    Recipient,
    Refusal,
    Status,
    move,
    next_check,
    refusal,
)

OURS = Recipient("merchant", "app")

ORDER = Order(
    id=1,
    order_id="o1",
    uid="u1",
    product_id="p1",
    product_line="line",
    channel="alipay",
    price=100,
    total_price=100,
    amount=100,
    promo_code="",
    ext="",
    description="",
    days=1,
    tokens=0,
    merchant="merchant",
    app="app",
    status=Status.UNPAID,
    refunded=0,
    transaction_id="",
    code_url="",
    fingerprint="",
    checks=0,
    next_check_at=0,
    expires_at=0,
    created_at=0,
    updated_at=0,
)

PAYMENT = Payment("alipay", "o1", "t1", 100, "CNY", "merchant", "app", 0)

# How far an order has come. Late money is the one way on from "closed".
PROGRESS = {Status.UNPAID: 0, Status.CLOSED: 1, Status.PAID: 2, Status.REFUNDED: 3}


def test_the_numbers_are_the_documented_ones() -> None:
    assert [(each.name, each.value) for each in Status] == [
        ("UNPAID", 0),
        ("PAID", 1),
        ("REFUNDED", 2),
        ("CLOSED", 3),
    ]


def test_no_move_goes_backwards() -> None:
    assert all(PROGRESS[after] > PROGRESS[before] for (before, _), after in MOVES.items())


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("what", Move)
def test_a_move_is_in_the_table_or_is_refused(status: Status, what: Move) -> None:
    allowed = {
        (Status.UNPAID, Move.PAY): Status.PAID,
        (Status.UNPAID, Move.CLOSE): Status.CLOSED,
        (Status.CLOSED, Move.PAY_LATE): Status.PAID,
        (Status.PAID, Move.REFUND_ALL): Status.REFUNDED,
    }
    if (status, what) in allowed:
        assert move(status, what) is allowed[status, what]
    else:
        with pytest.raises(OrderNotPayable, match=f"{status.name.lower()} cannot {what}"):
            move(status, what)


def test_a_payment_that_agrees_in_everything_fits() -> None:
    assert refusal(ORDER, PAYMENT, OURS) is None


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"channel": "tecent-pay"}, Refusal.WRONG_CHANNEL),
        ({"merchant": "other"}, Refusal.WRONG_MERCHANT),
        ({"app": "other"}, Refusal.WRONG_APP),
        ({"currency": "USD"}, Refusal.WRONG_CURRENCY),
        ({"currency": ""}, Refusal.WRONG_CURRENCY),
        ({"amount": 99}, Refusal.WRONG_AMOUNT),
        ({"amount": 101}, Refusal.WRONG_AMOUNT),
        ({"amount": 0}, Refusal.WRONG_AMOUNT),
    ],
)
def test_one_difference_is_enough_to_refuse(wrong: dict[str, Any], why: Refusal) -> None:
    assert refusal(ORDER, replace(PAYMENT, **wrong), OURS) is why


def test_money_to_a_merchant_that_is_no_longer_ours_is_refused() -> None:
    assert refusal(ORDER, PAYMENT, Recipient("new", "app")) is Refusal.WRONG_MERCHANT
    assert refusal(ORDER, PAYMENT, Recipient("merchant", "new")) is Refusal.WRONG_APP


def test_a_payment_without_an_order_is_refused() -> None:
    assert refusal(None, PAYMENT, OURS) is Refusal.UNKNOWN_ORDER


@given(st.integers(0, 10_000), st.integers(0, 2**50))
def test_the_next_check_is_later_and_never_far_away(checks: int, now: int) -> None:
    assert now < next_check(checks, now) <= next_check(checks + 1, now) <= now + LONGEST_CHECK_MS
