"""What every handler of the API keeps.

The law: who has no key is refused before the body is read; a body is read up to its bound and no
further.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import msgspec
import tornado.web
from tornado.http1connection import HTTP1Connection

from handlers.answers import JSON, success
from handlers.context import Context
from handlers.refusals import RefusingHandler
from handlers.validation import parse_object
from vision.access import Role
from vision.errors import InvalidRequest, RequestTooLarge
from vision.missions.idempotency import IdempotencyKey

# A number of this length is below 2**53, which every JSON parser reads exactly.
MAX_DIGITS: Final = 15


@tornado.web.stream_request_body
class ApiHandler(RefusingHandler):
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


class UnknownEndpoint(ApiHandler):
    """Any address that is none of ours."""

    async def prepare(self) -> None:
        raise tornado.web.HTTPError(404)
