"""Money is a whole number of fen; yuan are only a way to write it.

The law: no float ever holds money, and nothing is rounded on the way in or out: `fen(yuan(n)) == n`
for every amount, and a text that is not exactly a number of fen is refused. The one place where a
division is needed, a percentage, rounds in one documented direction.
"""

from __future__ import annotations

import re
from typing import Final

CURRENCY: Final = "CNY"

FEN_PER_YUAN: Final = 100

# Both gateways refuse an order of nothing, so no promotion code goes below this.
LEAST_AMOUNT: Final = 1

# A hundred million yuan is Alipay's highest amount of one order; more is a slip of the pen.
MOST_AMOUNT: Final = 100_000_000 * FEN_PER_YUAN

# Alipay writes two decimals and takes fewer. No sign, no exponent, no digits of other scripts.
_YUAN: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,2}))?")


def yuan(amount: int) -> str:
    """The amount in fen as yuan with two decimals: 1234 -> "12.34". Raises ValueError below 0."""
    if amount < 0:
        raise ValueError(f"{amount} fen is not an amount")
    return f"{amount // FEN_PER_YUAN}.{amount % FEN_PER_YUAN:02d}"


def fen(text: str) -> int:
    """The amount of a text in yuan, exactly: "12.34", "12.3" and "12" are read.

    Raises ValueError for anything else: a third decimal is not rounded away.
    """
    match = _YUAN.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text[:40]}" is not an amount in yuan such as 12.34')
    return int(match[1]) * FEN_PER_YUAN + int((match[2] or "").ljust(2, "0"))


def share(amount: int, part: int, whole: int) -> int:
    """`amount * part / whole`, rounded down; all of `amount` when the part is the whole."""
    return amount * part // whole
