"""How long to wait before a failed model call is tried again.

The law: pure. The wait doubles with each attempt up to a bound, is spread by the jitter so that
calls that failed together do not come back together, and is never shorter than what the upstream
asked for, as long as that is bounded too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# A rate limit window is often one second; a first retry well under it mostly wastes the attempt.
FIRST_DELAY = 0.5
# Someone watches the node: longer than this looks dead, and the upstream has had its rest.
MAX_DELAY = 8.0
# An upstream that wants more than a minute is out of service as far as one mission is concerned.
MAX_RETRY_AFTER = 60.0


def retry_delay(attempt: int, retry_after: float | None, jitter: float) -> float:
    """Seconds to wait after the failed `attempt` (1 is the first).

    `retry_after` is the upstream's wish in seconds; `jitter` is in [0, 1). Without a wish the
    result is in [half, whole) of the doubled delay; with one, at least the wish (up to
    MAX_RETRY_AFTER) and up to a quarter more.
    """
    # The exponent is bounded so that a huge attempt number cannot overflow.
    doubled = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(max(attempt, 1) - 1, 16))
    delay = doubled * (0.5 + jitter / 2)
    if retry_after is None:
        return delay
    wish = min(max(retry_after, 0.0), MAX_RETRY_AFTER)
    return max(delay, wish * (1 + jitter / 4))


def parse_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The wait in seconds that response headers ask for, or None.

    Reads `retry-after-ms` (OpenAI) and `Retry-After` (RFC 9110, section 10.2.3: seconds or an HTTP
    date). `headers` must find names in lower case; `now` is Unix time. A malformed wish is none.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return max(0.0, seconds * unit)
    date = _date(headers.get("retry-after"))
    return None if date is None else max(0.0, date - now)


def _number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def _date(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        parsed = parsedate_to_datetime(text)
    except ValueError:
        return None
    # An HTTP date is always GMT; the parser gives no zone for the form "-0000".
    aware: datetime = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return aware.timestamp()
