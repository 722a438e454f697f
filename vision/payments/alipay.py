"""Alipay, face to face: orders, refunds, bills and notifications of one merchant.

The law: an answer is shown to be genuine on the bytes of its response node before it is parsed; one
that is not counts as none. Every call carries our own number (`out_trade_no`, `out_request_no`) and
the same content whenever it is repeated, so it may be repeated after any failure. `place` makes a
code that nobody has scanned yet; until then Alipay has no such trade (`ACQ.TRADE_NOT_EXIST`), which
means unpaid. The code dies at the order's `expires_at`, so close an order after that, not before.

Source: payment-protocols, "Alipay, face to face".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final, Literal
from urllib.parse import urlencode

import msgspec

from vision.payments.alipay_config import AlipayConfig
from vision.payments.alipay_signing import answer_parts, notified_parameters, signed_parameters
from vision.payments.alipay_wire import (
    Node,
    read_bill,
    read_node,
    read_notification,
    read_refund,
    read_standing,
)
from vision.payments.errors import GatewayRefused, GatewayUnavailable
from vision.payments.exchange import HttpClient
from vision.payments.gateway import (
    Acknowledgement,
    BillLine,
    Channel,
    Notification,
    Placement,
    PlaceOrder,
    RefundOrder,
    RefundStanding,
    Standing,
)
from vision.payments.moments import beijing_text, now_ms
from vision.payments.money import yuan
from vision.payments.signatures import is_signed

_QUERY: Final = "alipay.trade.query"
_NO_TRADE: Final = "ACQ.TRADE_NOT_EXIST"
_NO_BILL: Final = "isp.bill_not_exist"
# 20000: Alipay cannot tell; 10003: it waits for the payer.
_UNDECIDED: Final = {"20000", "10003"}
_PASSING: Final = {"ACQ.SYSTEM_ERROR", "aop.ACQ.SYSTEM_ERROR"}
# The longest subject and reason that it takes, in characters.
_MOST_TEXT: Final = 256
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


class AlipayGateway:
    """One merchant at Alipay. Made on the event loop that uses it; see `gateway.Gateway`."""

    channel: Channel = "alipay"

    def __init__(self, config: AlipayConfig) -> None:
        self.merchant = config.seller
        self.app = config.app
        self._config = config
        self._http = HttpClient("alipay", config.pace)

    async def place(self, order: PlaceOrder) -> Placement:
        """Make the order payable by its code, until it expires."""
        content = {
            "out_trade_no": order.order_id,
            "total_amount": yuan(order.amount),
            "subject": order.description[:_MOST_TEXT],
            "time_expire": beijing_text(order.expires_at),
        }
        node = await self._call("alipay.trade.precreate", content)
        if not node.qr_code:
            raise GatewayUnavailable("alipay answers an order without a code")
        return Placement(node.qr_code)

    async def query(self, order_id: str) -> Standing:
        """What has become of the order; one that nobody has scanned is unpaid."""
        try:
            node = await self._call(_QUERY, {"out_trade_no": order_id})
        except GatewayRefused as refused:
            if refused.gateway_code == _NO_TRADE:
                return Standing("unpaid")
            if refused.gateway_code in _UNDECIDED:
                return Standing("unknown")
            raise
        return read_standing(node, order_id, merchant=self.merchant, app=self.app)

    async def close(self, order_id: str) -> Standing:
        """Close the order; when Alipay will not, say how it stands. One that nobody has scanned
        counts as closed."""
        try:
            await self._call("alipay.trade.close", {"out_trade_no": order_id})
        except GatewayRefused as refused:
            if refused.gateway_code == _NO_TRADE:
                return Standing("closed")
            standing = await self.query(order_id)
            if standing.state == "unpaid":
                raise
            return standing
        return Standing("closed")

    async def cancel(self, order_id: str) -> Literal["closed", "refunded"]:
        """Undo the order whatever its state: a payment is given back whole. For people, not for
        `close`: a payment that arrives at the last moment is to be kept."""
        node = await self._call("alipay.trade.cancel", {"out_trade_no": order_id})
        return "refunded" if node.action == "refund" else "closed"

    async def refund(self, refund: RefundOrder) -> RefundStanding:
        """Give money back. `fund_change` N says that nothing moved *this time*, so it is asked
        what became of this number."""
        content = {
            "out_trade_no": refund.order_id,
            "refund_amount": yuan(refund.amount),
            "out_request_no": refund.refund_id,
            "refund_reason": refund.reason[:_MOST_TEXT],
        }
        node = await self._call("alipay.trade.refund", content)
        if node.fund_change == "Y":
            return RefundStanding(refund.refund_id, "done", refund.amount)
        return await self.query_refund(refund)

    async def query_refund(self, refund: RefundOrder) -> RefundStanding:
        """What has become of the refund; `unknown` when Alipay never saw it, or it failed."""
        content = {"out_trade_no": refund.order_id, "out_request_no": refund.refund_id}
        try:
            node = await self._call("alipay.trade.fastpay.refund.query", content)
        except GatewayRefused as refused:
            if refused.gateway_code == _NO_TRADE:
                return RefundStanding(refund.refund_id, "unknown", None)
            raise
        return read_refund(node, refund.refund_id)

    async def bill(self, day: date) -> Sequence[BillLine]:
        """All payments and refunds of a day; empty when there were none."""
        content = {"bill_type": "trade", "bill_date": day.isoformat()}
        try:
            node = await self._call("alipay.data.dataservice.bill.downloadurl.query", content)
        except GatewayRefused as refused:
            if refused.gateway_code == _NO_BILL:
                return []
            raise
        answer = await self._http.repeated(
            lambda: self._http.download(node.bill_download_url, headers={})
        )
        if answer.status != 200:
            raise GatewayUnavailable(f"alipay answers {answer.status} to the download of a bill")
        return await asyncio.to_thread(read_bill, answer.body)

    async def read_notification(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Notification:
        """Verify the form's signature, then read it. Neither `headers` nor `now` is part of what
        Alipay signs; a repeat of an old notification is settled already."""
        keys = list(self._config.alipay_keys.values())
        return read_notification(notified_parameters(body, keys))

    def acknowledge(self) -> Acknowledgement:
        """Exactly seven letters."""
        return received()

    def refuse(self, message: str, *, retry: bool) -> Acknowledgement:
        """Anything else makes Alipay repeat; the message is for its logs and ours."""
        return not_received(message, retry=retry)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(self, method: str, content: Mapping[str, str]) -> Node:
        """The genuine node of a success. Raises GatewayUnavailable, GatewayRefused."""
        business = msgspec.json.encode(content).decode()
        node = await self._http.repeated(lambda: self._once(method, business))
        # A signature does not say which question it answers.
        if node.out_trade_no and node.out_trade_no != content.get("out_trade_no"):
            raise GatewayUnavailable("alipay answers about another order")
        return node

    async def _once(self, method: str, business: str) -> Node:
        parameters = self._parameters(method, business)
        body = urlencode({"biz_content": parameters.pop("biz_content")}).encode()
        url = f"{self._config.gateway_url}?{urlencode(parameters)}"
        answer = await self._http.call("POST", url, _FORM, body)
        if answer.status != 200:
            raise GatewayUnavailable(f"alipay answers {answer.status} to {method}")
        node = read_node(self._genuine(method, answer.body))
        if node.succeeded:
            return node
        raise _failure(method, node)

    def _parameters(self, method: str, business: str) -> dict[str, str]:
        notifies = method == "alipay.trade.precreate"
        common = {
            "app_id": self.app,
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": beijing_text(now_ms(time.time())),
            "version": "1.0",
            "notify_url": self._config.notify_url if notifies else "",
            "biz_content": business,
            **self._config.numbers,
        }
        return signed_parameters(common, self._config.key)

    def _genuine(self, method: str, body: bytes) -> bytes:
        """The bytes of the response node, signed by Alipay. Raises GatewayUnavailable."""
        try:
            parts = answer_parts(body)
        except ValueError as error:
            raise GatewayUnavailable(f"what answers {method} is not alipay: {error}") from error
        node = parts.get(method.replace(".", "_") + "_response") or parts.get("error_response")
        number = parts.get("alipay_cert_sn", b'""').decode(errors="replace").strip('"')
        key = self._config.alipay_keys.get(number)
        if key is None:
            raise GatewayUnavailable(
                f"alipay signs with certificate {number}; add it to the file of alipay-certificate"
            )
        signature = parts.get("sign", b'""').decode(errors="replace").strip('"')
        if node is None or not is_signed(key, node, signature.replace("\\/", "/")):
            # Quoted, not believed: Alipay does not sign its answer to an app that it does not know.
            quoted = body[:200].decode(errors="replace")
            raise GatewayUnavailable(f"what answers {method} is not shown to be alipay: {quoted!r}")
        return node


def _failure(method: str, node: Node) -> GatewayUnavailable | GatewayRefused:
    code = node.sub_code or node.code
    text = f"{code}: {node.sub_msg or node.msg}"
    if node.code in _UNDECIDED and method == _QUERY:
        return GatewayRefused(f"alipay cannot tell: {text}", gateway_code=node.code)
    if node.code in _UNDECIDED or code in _PASSING:
        return GatewayUnavailable(f"alipay cannot now: {text}")
    return GatewayRefused(f"alipay refuses: {text}", gateway_code=code)


def received() -> Acknowledgement:
    """Alipay's form of "received"."""
    return Acknowledgement(200, {"Content-Type": "text/plain"}, b"success")


def not_received(message: str, *, retry: bool) -> Acknowledgement:
    """Alipay's form of "not received"; it looks at the body only."""
    body = f"fail: {message[:256]}".encode()
    return Acknowledgement(500 if retry else 401, {"Content-Type": "text/plain"}, body)
