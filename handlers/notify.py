"""Where payments are told of: by an internal caller with a key, and by the gateways themselves.

The law: a gateway's callback has no key; it is what its signature shows it to be. The answer is the
gateway's own form, and "received" goes out only after everything that follows is committed.
"""

from __future__ import annotations

from typing import Final

import tornado.web

from handlers.api import ApiHandler
from handlers.context import Context
from handlers.payment import added, documented
from handlers.refusals import RefusingHandler
from vision.access import Role
from vision.payments.gateway import Channel
from vision.payments.intake import LARGEST_BODY
from vision.payments.internal import Told


class InternalNotifyHandler(ApiHandler):
    """POST /api/payment/notify: a trusted caller tells of a payment."""

    role = Role.PAYMENT

    async def post(self) -> None:
        body = self.json_body("payment-notify")
        order = await self.services.payments.internal.tell(
            Told(
                uid=body["uid"],
                product_id=body["productId"],
                amount=int(body["amount"]),
                order_id=body.get("orderId"),
                transaction_id=body.get("transactionId"),
            )
        )
        self.answer({**documented(order), **added(order)})


@tornado.web.stream_request_body
class GatewayNotifyHandler(RefusingHandler):
    """POST /api/payment/notify/wechat and /alipay: the gateways' callbacks."""

    def initialize(self, context: Context, channel: Channel) -> None:
        self.services = context.services
        self._channel = channel
        self._body = bytearray()

    def data_received(self, chunk: bytes) -> None:
        if len(self._body) <= LARGEST_BODY:
            self._body += chunk

    async def post(self) -> None:
        headers = dict(self.request.headers.get_all())
        intake = self.services.payments.intake
        answer = await intake.receive(self._channel, headers, bytes(self._body))
        self.set_status(answer.status)
        for name, text in answer.headers.items():
            self.set_header(name, text)
        if answer.status == 204:
            self.clear_header("Content-Type")
        await self.finish(answer.body or None)


PATHS: Final[dict[str, Channel]] = {"wechat": "tecent-pay", "alipay": "alipay"}
