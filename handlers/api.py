"""What every handler of the API keeps.

The law: who has no key is refused before the body is read; a body is read up to its bound and no
further; whatever a handler raises is answered in the documented shape.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar, Final

import msgspec
import structlog
import tornado.web
from tornado.http1connection import HTTP1Connection

from handlers.answers import failure, retry_after_of, status_of, success
from handlers.context import Context
from handlers.validation import parse_object
from vision.access import Role
from vision.errors import InvalidRequest, RequestTooLarge, VisionError
from vision.missions.idempotency import IdempotencyKey

_logger = structlog.get_logger(__name__)

# A number of this length is below 2**53, which every JSON parser reads exactly.
MAX_DIGITS: Final = 15

JSON: Final = "application/json; charset=UTF-8"


@tornado.web.stream_request_body
class ApiHandler(tornado.web.RequestHandler):
    """A handler behind `Authorization: Vision <key>`, with a key of its role."""

    role: ClassVar[Role] = Role.CLIENT

    def initialize(self, context: Context) -> None:
        self.services = context.services
        self.validators = context.validators
        self.connections = context.connections
        self._body = bytearray()

    async def prepare(self) -> None:
        self.owner = await self.authenticate()
        self.connections.enter(self)
        self._refuse_large_body()

    def on_finish(self) -> None:
        self.connections.leave(self)

    def on_connection_close(self) -> None:
        super().on_connection_close()
        self.connections.leave(self)

    async def authenticate(self) -> str:
        """A name for who asks. Raises `Unauthorized` unless the request carries a key of ours."""
        return self.services.keys.check(self.request.headers.get("Authorization"), self.role)

    def _refuse_large_body(self) -> None:
        length = self.request.headers.get("Content-Length", "0")
        limit = self.services.settings.max_body
        if length.isdigit() and int(length) > limit:
            connection = self.request.connection
            if isinstance(connection, HTTP1Connection):
                # The answer closes the connection; until then Tornado may drop what still comes
                # instead of writing a second, bare answer behind ours.
                connection.set_max_body_size(int(length))
            raise RequestTooLarge(f"the body has {length} bytes; at most {limit} are allowed")

    def data_received(self, chunk: bytes) -> None:
        if len(self._body) <= self.services.settings.max_body:
            self._body += chunk

    def json_body(self, schema: str) -> dict[str, Any]:
        """The body, valid by its schema. Raises `InvalidRequest` and `RequestTooLarge`."""
        limit = self.services.settings.max_body
        if len(self._body) > limit:
            raise RequestTooLarge(f"the body is too large; at most {limit} bytes are allowed")
        document = parse_object(bytes(self._body))
        self.validators.check(schema, document)
        return document

    def idempotency_key(self) -> IdempotencyKey | None:
        """The client's `Idempotency-Key`, with the body that it came with."""
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            return None
        return IdempotencyKey(key, self.owner, bytes(self._body))

    def query_text(self, name: str) -> str:
        """A query parameter that must be there and not empty."""
        value = self._query(name)
        if not value:
            raise InvalidRequest("is missing", path=name)
        return value

    def query_optional(self, name: str) -> str | None:
        """A query parameter that may be left out, or empty."""
        return self._query(name) or None

    def query_count(self, name: str, default: int) -> int:
        """A query parameter that is a whole number from 0."""
        text = self._query(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
            raise InvalidRequest("must be a whole number from 0", path=name)
        return int(text)

    def _query(self, name: str) -> str | None:
        try:
            return self.get_query_argument(name, None)
        except tornado.web.HTTPError:
            raise InvalidRequest("is not UTF-8", path=name) from None

    def answer(self, data: Any) -> None:
        """Answer in the documented envelope."""
        self.answer_json(success(data))

    def answer_json(self, document: Any) -> None:
        self.set_header("Content-Type", JSON)
        self.finish(msgspec.json.encode(document))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = (
            kwargs["exc_info"][1] if "exc_info" in kwargs else tornado.web.HTTPError(status_code)
        )
        send_failure(self, error, *self.shape_failure(error))

    def shape_failure(self, error: BaseException) -> tuple[int, dict[str, Any]]:
        """The HTTP status and the envelope of an error; the oldest endpoints have their own."""
        return status_of(error), failure(error)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        log_failure(self, value)


class UnknownEndpoint(ApiHandler):
    """Any address that is none of ours."""

    async def prepare(self) -> None:
        raise tornado.web.HTTPError(404)


def send_failure(
    handler: tornado.web.RequestHandler,
    error: BaseException,
    status: int,
    document: dict[str, Any],
) -> None:
    """Answer a request with an error."""
    handler.set_status(status)
    seconds = retry_after_of(error)
    if seconds is not None:
        handler.set_header("Retry-After", str(seconds))
    if status == 401:
        handler.set_header("WWW-Authenticate", "Vision")
    handler.set_header("Content-Type", JSON)
    handler.finish(msgspec.json.encode(document))


def log_failure(handler: tornado.web.RequestHandler, error: BaseException | None) -> None:
    """One line for a refusal, a stack trace for a bug of ours."""
    path = handler.request.path
    if isinstance(error, VisionError):
        _logger.info("refused", path=path, code=error.code, error=error.message)
    elif not isinstance(error, tornado.web.HTTPError):
        _logger.error("handler_crashed", path=path, exc_info=error)
