"""Every way a call of an upstream can fail, as a ModelError.

The law: pure. A failure has one of our codes and says what happened, with the upstream's own words
where it gave some: bounded in length, on one line, and without the key. `retryable` is true only
where the same request may succeed later. Exceptions of libraries are turned into these where they
arise (`vision/models/clients.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from vision.errors import ModelError

# A sentence or two. Some servers answer with a page of HTML or a stack trace.
MAX_MESSAGE = 500

# Request timeout and conflict: the upstream itself says that the same request may succeed.
_RETRYABLE_4XX = frozenset({408, 409})
# OpenAI answers 429 also when the account is out of money; that does not pass by waiting.
_NO_MONEY = "insufficient_quota"


def status_error(
    status: int | None, body: bytes, *, name: str = "the upstream", retry_after: float | None = None
) -> ModelError:
    """The error for an HTTP status and body, or (status None) for an error object in a stream."""
    fields = _fields(body)
    if status is None:
        status = _status_in(fields.get("code"))
    words = _words(fields) or bounded(body.decode("utf-8", "replace"))
    said = f"{name} answered {status or 'with an error'}" + (f": {words}" if words else "")
    code, retryable = _classify(status, fields.get("code"))
    return ModelError(said, code=code, retryable=retryable, retry_after=retry_after, status=status)


def timeout_error(which: str, seconds: float, *, name: str) -> ModelError:
    """A bound of `Timeouts` was reached: `which` is its name."""
    happened = {
        "connect": f"no connection to {name}",
        "first_token": f"no first token from {name}",
        "idle": f"nothing more from {name}",
        "total": f"no complete answer from {name}",
    }[which]
    return ModelError(
        f"{happened} within {seconds:g} s ({which} timeout)",
        code="upstream_timeout",
        retryable=True,
    )


def garbled(message: str) -> ModelError:
    """The upstream does not speak the protocol; `message` says where."""
    return ModelError(message, code="upstream_garbled", retryable=False)


def unreachable(name: str, reason: str) -> ModelError:
    """There is no connection, or it broke before an answer."""
    return ModelError(
        f"{name} cannot be reached: {bounded(reason)}", code="upstream_unreachable", retryable=True
    )


def cut_off(name: str) -> ModelError:
    """The response ended before its end."""
    return ModelError(
        f"{name} broke off in the middle of its answer", code="upstream_cut_off", retryable=True
    )


def without_key(error: ModelError, key: str | None) -> ModelError:
    """The same error; where the upstream repeated the key that it was sent, the key is masked."""
    if not key or key not in error.message:
        return error
    return ModelError(
        error.message.replace(key, "***"),
        code=error.code,
        retryable=error.retryable,
        retry_after=error.retry_after,
        status=error.status,
    )


def _classify(status: int | None, code: object) -> tuple[str, bool]:
    if status == 429:
        return "upstream_rate_limited", code != _NO_MONEY
    if status is None or status >= 500 or status in _RETRYABLE_4XX:
        return "upstream_error", True
    return "upstream_rejected", False


def _fields(body: bytes) -> Mapping[str, object]:
    """The error object in a body: `{"error": {...}}`, `{"error": "..."}`, or the fields at once."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    if isinstance(document, dict):
        inner = document.get("error", document)
        return inner if isinstance(inner, dict) else {"message": inner}
    return {"message": document} if isinstance(document, str) else {}


def _words(fields: Mapping[str, object]) -> str:
    # FastAPI servers say `detail`.
    for key in ("message", "detail"):
        value = fields.get(key)
        if isinstance(value, str) and value:
            return bounded(value)
    return ""


def _status_in(code: object) -> int | None:
    """llama.cpp and vLLM put the HTTP status into the error object of a stream."""
    return code if isinstance(code, int) and 400 <= code < 600 else None


def bounded(text: str) -> str:
    """Foreign words on one line, not longer than MAX_MESSAGE."""
    line = " ".join(text[: 4 * MAX_MESSAGE].split())
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"
