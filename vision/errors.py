"""Every error that the server can give, as one small tree.

The law: an error has a stable code (for programs), a message (for people: what is wrong, where,
what to do) and, where a client's input is to blame, the JSON path of the place. The core raises
these and knows nothing of HTTP; `handlers/answers.py` maps each class to a status. A foreign
exception (Redis, HTTP, SQL) is translated where it arises, at the edge, and never travels further.

    VisionError
     +-- InvalidRequest        invalid_request      what the client sent is wrong; `path` says where
     |    +-- RequestTooLarge  request_too_large
     +-- Unauthorized          unauthorized
     +-- Forbidden             forbidden            a key of ours, but not for this
     +-- UnknownMission        unknown_mission      never was, or expired
     +-- UnknownNode           unknown_node
     +-- UnknownCursor         unknown_cursor       beyond the last event
     +-- IdempotencyConflict   idempotency_conflict the key was used with another body
     +-- StoreUnavailable      store_unavailable    Redis or the database is away; try again
     +-- LimitReached          limit_reached        this key has as many as it may
     +-- Overloaded            overloaded           a bound is reached; try again
     +-- StaleEpoch            stale_epoch          another runner owns the mission now
     +-- ModelError            (its own codes)      an upstream failed; see `ModelError`
     +-- SettingError          setting_error        the start is refused; names the setting
"""

from __future__ import annotations

# Messages quote what a client sent, and go into answers and logs: megabytes must not come back.
LONGEST_MESSAGE = 1000
LONGEST_PATH = 300


def shorten(text: str, longest: int) -> str:
    """The text, or its beginning and its end with an ellipsis between them."""
    if len(text) <= longest:
        return text
    return f"{text[: longest * 3 // 4]} ... {text[-longest // 4 :]}"


class VisionError(Exception):
    """Base of every error of this server.

    `code` is stable and documented; `path` is a JSON path such as `promptList[3].id`, or "".
    """

    code: str = "vision_error"

    def __init__(self, message: str, *, path: str = "") -> None:
        self.path = shorten(path, LONGEST_PATH)
        message = shorten(message, LONGEST_MESSAGE)
        super().__init__(f"{self.path}: {message}" if path else message)

    @property
    def message(self) -> str:
        """What is wrong, and where, in one sentence."""
        return str(self)


class InvalidRequest(VisionError):
    """What the client sent cannot be accepted; nothing was done."""

    code = "invalid_request"


class RequestTooLarge(InvalidRequest):
    """The body, or something in it, is over a limit that a setting holds."""

    code = "request_too_large"


class Unauthorized(VisionError):
    """No key, or not one of ours."""

    code = "unauthorized"


class Forbidden(VisionError):
    """The key is one of ours and has not the role for what was asked."""

    code = "forbidden"


class UnknownMission(VisionError):
    """There is no mission with this id: it never was, or it has expired."""

    code = "unknown_mission"


class UnknownNode(VisionError):
    """The mission has no node with this id."""

    code = "unknown_node"


class UnknownCursor(VisionError):
    """The cursor is beyond the last event of the mission's log."""

    code = "unknown_cursor"


class IdempotencyConflict(VisionError):
    """The `Idempotency-Key` was used before, with another body."""

    code = "idempotency_conflict"


class StoreUnavailable(VisionError):
    """Redis or the database does not answer, or refuses to write. What was acknowledged is safe."""

    code = "store_unavailable"


class Overloaded(VisionError):
    """A bound of this process is reached; the same request may succeed a little later."""

    code = "overloaded"


class LimitReached(VisionError):
    """The key of this client has as many connections or subscriptions as one key may have."""

    code = "limit_reached"


class StaleEpoch(VisionError):
    """The write was refused: another runner has taken the mission over."""

    code = "stale_epoch"


class SettingError(VisionError):
    """A setting is wrong; the server does not start."""

    code = "setting_error"


# What can go wrong with a call of a model.
MODEL_ERROR_CODES = (
    "upstream_unreachable",
    "upstream_timeout",
    "upstream_rate_limited",
    "upstream_error",  # 5xx
    "upstream_rejected",  # 4xx: the request itself is wrong, or our access to the upstream
    "upstream_cut_off",  # the stream ended before its end
    "upstream_garbled",  # not the protocol
)


class ModelError(VisionError):
    """One call of a model failed.

    `code` is one of `MODEL_ERROR_CODES`. `retryable` says whether the same call may succeed later;
    `retry_after` is the upstream's own wish in seconds, if it gave one; `status` its HTTP status,
    if there was one.
    """

    code = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        code: str,
        retryable: bool,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        self.status = status
