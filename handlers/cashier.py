"""The sandbox's cashier: a page on which a trial order is paid, refused or paid late.

The law: it exists only where the sandbox does, which is nowhere in production. Paying here sends a
signed notification to the real endpoint of the channel, over HTTP, like a gateway does. The page
needs no key, since no money moves; who has an order's number may pay it.
"""

from __future__ import annotations

import time
from typing import Any

import structlog
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from handlers.answers import JSON, success
from handlers.context import Context
from handlers.notify import PATHS
from handlers.refusals import RefusingHandler
from vision.errors import InvalidRequest
from vision.payments.money import yuan
from vision.payments.sandbox import SandboxGateway

_logger = structlog.get_logger(__name__)

# One call to ourselves over loopback; the order can be told of again.
NOTIFY_SECONDS = 10


class CashierHandler(RefusingHandler):
    """GET and POST /api/payment/sandbox: the order behind a code, and what the payer does."""

    def initialize(self, context: Context) -> None:
        self.services = context.services

    async def get(self) -> None:
        gateway, order_id = self._meant()
        self._answer(_shown(gateway, order_id))

    async def post(self) -> None:
        gateway, order_id = self._meant()
        action = self.get_query_argument("action", "")
        now = time.time()
        match action:
            case "pay":
                gateway.pay(order_id, now)
            case "pay-late":
                gateway.pay_late(order_id, now)
            case "decline":
                gateway.decline(order_id)
            case _:
                raise InvalidRequest("must be pay, pay-late or decline", path="action")
        if action != "decline":
            await self._notify(gateway, order_id, now)
        self._answer(_shown(gateway, order_id))

    def _meant(self) -> tuple[SandboxGateway, str]:
        channel = self.get_query_argument("channel", "")
        for gateway in self.services.sandbox.values():
            if gateway.channel == channel:
                return gateway, self.get_query_argument("orderId", "")
        raise InvalidRequest("there is no sandbox for this channel", path="channel")

    async def _notify(self, gateway: SandboxGateway, order_id: str, now: float) -> None:
        callback = gateway.callback(order_id, now)
        name = next(path for path, channel in PATHS.items() if channel == gateway.channel)
        url = f"{self.services.base_url}/api/payment/notify/{name}"
        request = HTTPRequest(
            url,
            method="POST",
            headers=dict(callback.headers),
            body=callback.body,
            request_timeout=NOTIFY_SECONDS,
        )
        response = await AsyncHTTPClient().fetch(request, raise_error=False)
        _logger.info("sandbox_notified", order_id=order_id, status=response.code)

    def _answer(self, data: dict[str, Any]) -> None:
        self.set_header("Content-Type", JSON)
        self.finish(success(data))


def _shown(gateway: SandboxGateway, order_id: str) -> dict[str, Any]:
    found = [order for order in gateway.orders() if order.order_id == order_id]
    if not found:
        raise InvalidRequest("no order with this number was placed here", path="orderId")
    order = found[0]
    return {
        "orderId": order.order_id,
        "channel": gateway.channel,
        "description": order.description,
        "amount": order.amount,
        "yuan": yuan(order.amount),
        "state": order.state,
        "declined": order.declined,
        "expiresAt": order.expires_at,
    }
