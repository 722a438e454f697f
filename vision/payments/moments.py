"""How moments look on the gateways' wires.

The law: inside, a moment is a whole number of milliseconds since the epoch; the gateways write the
clock of UTC+8, with or without saying so. What they write has no milliseconds: writing cuts them
off, reading gives 0. All readers raise ValueError with what was wrong.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

# China has one clock and no summer time; both gateways count days by it.
BEIJING: Final = timezone(timedelta(hours=8))

_CLOCK: Final = "%Y-%m-%d %H:%M:%S"


def now_ms(seconds: float) -> int:
    """What `time.time()` gives, in whole milliseconds."""
    return int(seconds * 1000)


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
