"""How a request is refused: whatever a handler raises is answered in the documented shape.

The law: every handler of ours that can fail is a `RefusingHandler`, so that no client sees another
shape, and no crash goes unlogged. What an error looks like is decided in `answers.py`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import msgspec
import structlog
import tornado.web

from handlers.answers import JSON, failure, retry_after_of, status_of
from vision.errors import VisionError

_logger = structlog.get_logger(__name__)


class RefusingHandler(tornado.web.RequestHandler):
    """A handler whose errors have the documented shape."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = (
            kwargs["exc_info"][1] if "exc_info" in kwargs else tornado.web.HTTPError(status_code)
        )
        status, document = self.shape_failure(error)
        self.set_status(status)
        seconds = retry_after_of(error)
        if seconds is not None:
            self.set_header("Retry-After", str(seconds))
        if status == 401:
            self.set_header("WWW-Authenticate", "Vision")
        self.set_header("Content-Type", JSON)
        self.finish(msgspec.json.encode(document))

    def shape_failure(self, error: BaseException) -> tuple[int, dict[str, Any]]:
        """The HTTP status and the envelope of an error; the oldest endpoints have their own."""
        return status_of(error), failure(error)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """One line for a refusal, a stack trace for a bug of ours."""
        path = self.request.path
        if isinstance(value, VisionError):
            _logger.info("refused", path=path, code=value.code, error=value.message)
        elif not isinstance(value, tornado.web.HTTPError):
            _logger.error("handler_crashed", path=path, exc_info=value)
