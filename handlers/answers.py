"""How answers look: the documented envelopes, and the HTTP status of every error.

The law: this is the only place that knows both an error and a status. A client gets the stable
code, the sentence and the path; it never gets a stack trace, and never a 5xx for what it sent.

    success   {"statusCode": 200, "message": "", "data": ...}
    error     {"statusCode": 400, "message": "...", "error": {"code", "message", "path"}}

The single prompt has its own, older envelope: `code` and `errorMessage` are its `statusCode` and
`message`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import tornado.web

from vision.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidRequest,
    LimitReached,
    ModelError,
    Overloaded,
    RequestTooLarge,
    StoreUnavailable,
    Unauthorized,
    UnknownCursor,
    UnknownMission,
    UnknownNode,
    VisionError,
)
from vision.payments.errors import (
    AmbiguousOrder,
    GatewayRefused,
    GatewayUnavailable,
    NotificationRefused,
    OrderNotPayable,
    PriceMismatch,
    PromoCodeRefused,
    RefundRefused,
    UnknownOrder,
    UnknownProduct,
)

_STATUS: Final[Mapping[type[VisionError], int]] = {
    RequestTooLarge: 413,
    InvalidRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    UnknownMission: 404,
    UnknownNode: 404,
    UnknownCursor: 400,
    IdempotencyConflict: 409,
    LimitReached: 429,
    Overloaded: 503,
    StoreUnavailable: 503,
}

_PAYMENT_STATUS: Final[Mapping[type[VisionError], int]] = {
    GatewayUnavailable: 503,
    GatewayRefused: 502,
    NotificationRefused: 401,
    UnknownOrder: 404,
    UnknownProduct: 400,
    PriceMismatch: 400,
    PromoCodeRefused: 400,
    OrderNotPayable: 409,
    AmbiguousOrder: 409,
    RefundRefused: 409,
}

_MODEL_STATUS: Final = {
    "upstream_rate_limited": 429,
    "upstream_timeout": 504,
    "upstream_unreachable": 503,
}

# What an upstream says about the request itself; its other refusals (our key, our account) are the
# operator's business and look like a bad gateway to the client.
_CLIENT_FAULTS: Final = frozenset({400, 404, 413, 422})

# A store that was away comes back within a restart's time; asking more often helps nobody.
RETRY_AFTER_SECONDS: Final = 2


# The content type of every answer that is JSON.
JSON: Final = "application/json; charset=UTF-8"

# What Tornado itself refuses, by status.
HTTP_ERRORS: Final = {
    403: ("origin_refused", "pages of other origins may not connect"),
    404: ("unknown_endpoint", "there is nothing at this address"),
    405: ("method_not_allowed", "this address does not answer that method"),
}

INTERNAL_ERROR: Final = "internal_error"


def status_of(error: BaseException) -> int:
    """The HTTP status for an error; 500 for what is a bug of ours."""
    if isinstance(error, ModelError):
        if error.code == "upstream_rejected" and error.status in _CLIENT_FAULTS:
            return 400
        return _MODEL_STATUS.get(error.code, 502)
    if isinstance(error, tornado.web.HTTPError):
        return error.status_code
    known = {**_STATUS, **_PAYMENT_STATUS}
    return next((known[cls] for cls in type(error).__mro__ if cls in known), 500)


def retry_after_of(error: BaseException) -> int | None:
    """Seconds for the `Retry-After` header, where trying again makes sense."""
    if isinstance(error, ModelError) and error.retry_after is not None:
        return math.ceil(error.retry_after)
    return RETRY_AFTER_SECONDS if status_of(error) == 503 else None


def describe(error: BaseException) -> dict[str, Any]:
    """Code, sentence and path, fit for a client."""
    if isinstance(error, VisionError):
        return {"code": error.code, "message": error.message, "path": error.path}
    if isinstance(error, tornado.web.HTTPError):
        code, message = HTTP_ERRORS.get(error.status_code, ("invalid_request", error.reason))
        return {"code": code, "message": message or "the request is wrong", "path": ""}
    sentence = "the server failed; its log has the details"
    return {"code": INTERNAL_ERROR, "message": sentence, "path": ""}


def success(data: Any) -> dict[str, Any]:
    """The documented envelope of an answer."""
    return {"statusCode": 200, "message": "", "data": data}


def failure(error: BaseException) -> dict[str, Any]:
    """The documented envelope of an error."""
    described = describe(error)
    return {"statusCode": status_of(error), "message": described["message"], "error": described}


def single_failure(error: BaseException) -> dict[str, Any]:
    """The envelope of an error of the single prompt."""
    described = describe(error)
    status = status_of(error)
    return {"code": status, "data": None, "errorMessage": described["message"], "error": described}
