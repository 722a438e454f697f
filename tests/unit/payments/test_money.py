"""Money is exact: what is written is what is read, and nothing is rounded away."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from vision.payments.money import MOST_AMOUNT, fen, share, yuan


@given(st.integers(0, MOST_AMOUNT - 1))
def test_every_amount_comes_back_as_it_was(amount: int) -> None:
    assert fen(yuan(amount)) == amount
    assert Decimal(yuan(amount)) * 100 == amount


@pytest.mark.parametrize(
    ("text", "amount"), [("0", 0), ("12", 1200), ("12.3", 1230), ("12.34", 1234), ("0.01", 1)]
)
def test_yuan_are_read_with_up_to_two_decimals(text: str, amount: int) -> None:
    assert fen(text) == amount


@pytest.mark.parametrize(
    "text", ["", "1.234", "-1", "+1", "1e2", "1,00", ".5", "1.", " 1", "1\n", "١", "NaN", "1_0"]
)
def test_what_is_not_exactly_fen_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount in yuan"):
        fen(text)


def test_there_is_no_negative_amount() -> None:
    with pytest.raises(ValueError, match="-1 fen is not an amount"):
        yuan(-1)


@given(st.integers(0, 10**15), st.integers(1, 10**6), st.data())
def test_shares_never_exceed_the_whole_and_the_whole_is_all(
    amount: int, whole: int, data: st.DataObject
) -> None:
    part = data.draw(st.integers(0, whole))

    assert share(amount, whole, whole) == amount
    assert share(amount, part, whole) + share(amount, whole - part, whole) <= amount
