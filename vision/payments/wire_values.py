"""How amounts and times look on the gateways' wires, and nothing else.

The law: money is whole fen inside and text with two decimals (yuan) on some wires; between them
there are only integers and digits, never a float, and a text that is not exactly an amount is
refused. Times are milliseconds since the epoch inside; the gateways write the clock of UTC+8.

All readers raise ValueError with what was wrong.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

# China has one clock and no summer time; both gateways count days by it.
BEIJING: Final = timezone(timedelta(hours=8))

# At most 13 digits of yuan: more money than there is, and far inside a 64-bit integer.
_YUAN: Final = re.compile(r"(-?)([0-9]{1,13})(?:\.([0-9]{1,2}))?")
_CLOCK: Final = "%Y-%m-%d %H:%M:%S"


def yuan_text(fen: int) -> str:
    """12345 fen as `123.45`. Raises ValueError below zero."""
    if fen < 0:
        raise ValueError(f"{fen} fen is not an amount to ask for")
    return f"{fen // 100}.{fen % 100:02d}"


def fen_of(yuan: str) -> int:
    """`123.45`, `123.4`, `123` or `-0.01` yuan as fen."""
    match = _YUAN.fullmatch(yuan)
    if match is None:
        raise ValueError(f'"{yuan[:40]}" is not an amount in yuan')
    sign, whole, part = match.groups()
    fen = int(whole) * 100 + int((part or "").ljust(2, "0"))
    return -fen if sign else fen


def beijing_text(ms: int) -> str:
    """A moment as `2026-01-31 23:59:59` in UTC+8; milliseconds are cut off."""
    return _moment(ms).astimezone(BEIJING).strftime(_CLOCK)


def beijing_ms(text: str) -> int:
    """The moment that `2026-01-31 23:59:59` (with or without a fraction) is in UTC+8."""
    whole, _, fraction = text.partition(".")
    moment = datetime.strptime(whole, _CLOCK).replace(tzinfo=BEIJING)
    return _ms(moment) + (int(fraction[:3].ljust(3, "0")) if fraction else 0)


def rfc3339_text(ms: int) -> str:
    """A moment as `2026-01-31T23:59:59+08:00`; milliseconds are cut off."""
    return _moment(ms).astimezone(BEIJING).isoformat(timespec="seconds")


def rfc3339_ms(text: str) -> int:
    """The moment of an RFC 3339 text, which must name its offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f'"{text[:40]}" does not say which clock it is of')
    return _ms(moment)


def beijing_day(ms: int) -> date:
    """The day in UTC+8, by which the gateways make their bills."""
    return _moment(ms).astimezone(BEIJING).date()


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
