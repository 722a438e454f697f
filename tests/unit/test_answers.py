"""Each error has its status, its code and its envelope; a client's fault is never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tornado.web

from handlers.answers import describe, failure, retry_after_of, single_failure, status_of, success
from vision import errors
from vision.errors import InvalidRequest, ModelError, RequestTooLarge, StoreUnavailable, VisionError


def model_error(code: str, status: int | None = None, wish: float | None = None) -> ModelError:
    return ModelError("why", code=code, retryable=False, retry_after=wish, status=status)


def every(cls: type[VisionError]) -> Iterator[type[VisionError]]:
    for child in cls.__subclasses__():
        yield child
        yield from every(child)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("InvalidRequest", 400),
        ("RequestTooLarge", 413),
        ("Unauthorized", 401),
        ("UnknownMission", 404),
        ("UnknownNode", 404),
        ("UnknownCursor", 400),
        ("StoreUnavailable", 503),
        ("Overloaded", 503),
    ],
)
def test_status_of_each_error(name: str, status: int):
    assert status_of(getattr(errors, name)("why")) == status


@pytest.mark.parametrize(
    ("code", "upstream_status", "status"),
    [
        ("upstream_unreachable", None, 503),
        ("upstream_timeout", None, 504),
        ("upstream_rate_limited", 429, 429),
        ("upstream_error", 500, 502),
        ("upstream_cut_off", None, 502),
        ("upstream_garbled", None, 502),
        ("upstream_rejected", 400, 400),
        ("upstream_rejected", 422, 400),
        ("upstream_rejected", 401, 502),
        ("upstream_rejected", 403, 502),
        ("upstream_rejected", None, 502),
    ],
)
def test_status_of_a_models_failure(code: str, upstream_status: int | None, status: int):
    """What the upstream says of our key is our business, not the client's."""
    assert status_of(model_error(code, upstream_status)) == status


def test_bug_of_ours_is_a_500_and_tells_nothing():
    error = KeyError("secret")
    assert status_of(error) == 500
    assert describe(error)["code"] == "internal_error"
    assert "secret" not in str(failure(error))


@pytest.mark.parametrize(
    ("status", "code"), [(404, "unknown_endpoint"), (405, "method_not_allowed")]
)
def test_what_tornado_refuses_has_a_code_too(status: int, code: str):
    error = tornado.web.HTTPError(status)
    assert status_of(error) == status
    assert failure(error)["error"]["code"] == code


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (StoreUnavailable("why"), 2),
        (model_error("upstream_unreachable"), 2),
        (model_error("upstream_rate_limited", 429, 1.2), 2),
        (model_error("upstream_rate_limited", 429), None),
        (InvalidRequest("why"), None),
    ],
)
def test_retry_after_stands_where_trying_again_makes_sense(error: VisionError, seconds: int | None):
    assert retry_after_of(error) == seconds


def test_envelopes_are_the_documented_ones():
    error = RequestTooLarge("too much", path="promptList")
    described = {
        "code": "request_too_large",
        "message": "promptList: too much",
        "path": "promptList",
    }
    assert success([1]) == {"statusCode": 200, "message": "", "data": [1]}
    assert failure(error) == {
        "statusCode": 413,
        "message": "promptList: too much",
        "error": described,
    }
    assert single_failure(error) == {
        "code": 413,
        "data": None,
        "errorMessage": "promptList: too much",
        "error": described,
    }


def test_every_error_has_a_code_of_its_own():
    codes = [cls.code for cls in every(VisionError) if "code" in vars(cls)]  # not one inherited
    assert len(codes) == len(set(codes))
