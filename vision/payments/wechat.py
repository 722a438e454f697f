"""WeChat Pay API v3, Native: orders, refunds, bills and notifications of one merchant.

The law: every answer and every notification is shown to be genuine before it is parsed
(`wechat_signing`, `wechat_trust`); an answer that is not counts as none. Only a genuine refusal is
a refusal: an error page from somewhere on the way says nothing about the order. Every call carries
our own number (`out_trade_no`, `out_refund_no`) and the same content whenever it is repeated, so it
may be repeated after any failure.

Source: payment-protocols, "WeChat Pay API v3, Native".
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from cryptography.x509 import Certificate

from vision.payments.errors import GatewayRefused, GatewayUnavailable, NotificationRefused
from vision.payments.exchange import Answer, HttpClient
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
from vision.payments.moments import rfc3339_text
from vision.payments.wechat_config import WechatConfig
from vision.payments.wechat_signing import authorization, read_seal
from vision.payments.wechat_trust import Trust, read_certificate_pem
from vision.payments.wechat_wire import (
    read_bill,
    read_bill_place,
    read_code,
    read_event,
    read_refund,
    read_refusal,
    read_sealed_certificates,
    read_standing,
)

_ORDERS: Final = "/v3/pay/transactions"
_REFUNDS: Final = "/v3/refund/domestic/refunds"
_CERTIFICATES: Final = "/v3/certificates"

# Both spellings occur for an order that it never saw (or not yet).
_NO_ORDER: Final = {"ORDER_NOT_EXIST", "ORDERNOTEXIST", "RESOURCE_NOT_EXISTS"}
_NO_REFUND: Final = {"RESOURCE_NOT_EXISTS", "REFUNDNOTEXIST"}
# Refusals that pass: repeat with the same number.
_PASSING: Final = {
    "SYSTEM_ERROR",
    "FREQUENCY_LIMITED",
    "RATELIMIT_EXCEEDED",
    "BANK_ERROR",
    "STATEMENT_CREATING",
}
# A day on which nothing happened has no bill.
_NO_BILL: Final = {"NO_STATEMENT_EXIST"}
# The longest description and reason that it takes, in bytes of UTF-8.
_MOST_DESCRIPTION: Final = 127
_MOST_REASON: Final = 80


class WechatGateway:
    """One merchant at WeChat Pay. Made on the event loop that uses it; see `gateway.Gateway`."""

    channel: Channel = "tecent-pay"

    def __init__(self, config: WechatConfig) -> None:
        self.merchant = config.merchant.number
        self.app = config.app
        self._config = config
        self._http = HttpClient("wechat", config.pace)
        self._trust = Trust(config.public_keys, self._renew, config.pace.refresh)

    async def place(self, order: PlaceOrder) -> Placement:
        """Make the order payable by its code, until it expires."""
        content = {
            "appid": self.app,
            "mchid": self.merchant,
            "description": _cut(order.description, _MOST_DESCRIPTION),
            "out_trade_no": order.order_id,
            "time_expire": rfc3339_text(order.expires_at),
            "notify_url": self._config.notify_url,
            "amount": {"total": order.amount, "currency": "CNY"},
        }
        return Placement(read_code(await self._call("POST", f"{_ORDERS}/native", content)))

    async def query(self, order_id: str) -> Standing:
        """What has become of the order; one that WeChat Pay never saw is unpaid."""
        target = f"{_order(order_id)}?mchid={quote(self.merchant, safe='')}"
        try:
            return read_standing(await self._call("GET", target), order_id)
        except GatewayRefused as refused:
            if refused.gateway_code in _NO_ORDER:
                return Standing("unpaid")
            raise

    async def close(self, order_id: str) -> Standing:
        """Close the order; when WeChat Pay will not, say how it stands. One that it never saw
        cannot be paid and counts as closed."""
        try:
            await self._call("POST", f"{_order(order_id)}/close", {"mchid": self.merchant})
        except GatewayRefused as refused:
            if refused.gateway_code in _NO_ORDER:
                return Standing("closed")
            standing = await self.query(order_id)
            if standing.state == "unpaid":
                raise
            return standing
        return Standing("closed")

    async def refund(self, refund: RefundOrder) -> RefundStanding:
        """Give money back; the result comes with a notification when it is `pending`."""
        content = {
            "transaction_id": refund.transaction_id,
            "out_refund_no": refund.refund_id,
            "reason": _cut(refund.reason, _MOST_REASON),
            "notify_url": self._config.notify_url,
            "amount": {"refund": refund.amount, "total": refund.total, "currency": "CNY"},
        }
        return read_refund(await self._call("POST", _REFUNDS, content), refund.refund_id)

    async def query_refund(self, refund: RefundOrder) -> RefundStanding:
        """What has become of the refund; `unknown` when WeChat Pay never saw it."""
        target = f"{_REFUNDS}/{quote(refund.refund_id, safe='')}"
        try:
            return read_refund(await self._call("GET", target), refund.refund_id)
        except GatewayRefused as refused:
            if refused.gateway_code in _NO_REFUND:
                return RefundStanding(refund.refund_id, "unknown", None)
            raise

    async def bill(self, day: date) -> Sequence[BillLine]:
        """All payments and refunds of a day; empty when there were none."""
        try:
            place = await self._call("GET", f"/v3/bill/tradebill?bill_date={day}&bill_type=ALL")
        except GatewayRefused as refused:
            if refused.gateway_code in _NO_BILL:
                return []
            raise
        url, kind, digest = read_bill_place(place)
        return await self._http.repeated(lambda: self._download(url, kind, digest))

    async def read_notification(
        self, headers: Mapping[str, str], body: bytes, now: float
    ) -> Notification:
        """Verify the raw body, then open and read it."""
        await self._trust.check(read_seal(headers, now), body, now)
        return read_event(body, self._config.api_v3_key)

    def acknowledge(self) -> Acknowledgement:
        """204 without a body."""
        return received()

    def refuse(self, message: str, *, retry: bool) -> Acknowledgement:
        """500 or 401 with `{"code": "FAIL"}`; WeChat Pay repeats after both."""
        return not_received(message, retry=retry)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _call(
        self, method: str, target: str, content: Mapping[str, object] | None = None
    ) -> bytes:
        """The genuine body of a success. Raises GatewayUnavailable, GatewayRefused."""
        body = b"" if content is None else msgspec.json.encode(content)

        async def once() -> bytes:
            answer = await self._exchange(method, target, body)
            await self._check(answer, target)
            return answer.body

        return await self._http.repeated(once)

    async def _exchange(self, method: str, target: str, body: bytes) -> Answer:
        url = self._config.gateway_url + target
        return await self._http.call(method, url, self._headers(method, target, body), body)

    def _headers(self, method: str, target: str, body: bytes) -> dict[str, str]:
        merchant = self._config.merchant
        signed = authorization(
            merchant,
            method,
            target,  # as WeChat Pay sees it, whatever path a proxy's address has
            body,
            timestamp=int(time.time()),
            nonce=secrets.token_hex(16),
        )
        headers = {"Authorization": signed, "Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/json"
        # Asks for answers that are signed with this key: during a change both kinds occur.
        for key_id in self._config.public_keys:
            headers["Wechatpay-Serial"] = key_id
        return headers

    async def _check(self, answer: Answer, target: str) -> None:
        if answer.status >= 500 or answer.status == 429:
            raise GatewayUnavailable(f"wechat answers {answer.status} to {_path(target)}")
        if answer.status == 401:
            # It does not sign for those whom it does not know.
            raise GatewayRefused(
                "wechat does not accept our signature; check wechat-merchant-id, "
                "wechat-private-key, wechat-certificate and the clock",
                gateway_code="SIGN_ERROR",
            )
        await self._check_genuine(answer, target)
        if answer.status not in {200, 202, 204}:
            code, message = read_refusal(answer.body)
            if code in _PASSING:
                raise GatewayUnavailable(f"wechat cannot now: {code}: {message}")
            raise GatewayRefused(f"wechat refuses: {code}: {message}", gateway_code=code)

    async def _check_genuine(self, answer: Answer, target: str) -> None:
        now = time.time()
        try:
            await self._trust.check(read_seal(answer.headers, now), answer.body, now)
        except NotificationRefused as error:
            raise GatewayUnavailable(
                f"what answers {answer.status} to {_path(target)} is not shown to be wechat: "
                f"{error.message}"
            ) from error

    async def _renew(self) -> Sequence[Certificate]:
        return await self._http.repeated(self._fetch_certificates)

    async def _fetch_certificates(self) -> Sequence[Certificate]:
        """What WeChat Pay has now: the seal under our API v3 key vouches for each, and the answer's
        signature, by one of them, for the list."""
        answer = await self._exchange("GET", _CERTIFICATES, b"")
        if answer.status != 200:
            raise GatewayUnavailable(f"wechat answers {answer.status} to {_CERTIFICATES}")
        now = time.time()
        try:
            opened = [
                read_certificate_pem(sealed.open(self._config.api_v3_key))
                for sealed in read_sealed_certificates(answer.body)
            ]
            fetched = Trust(self._config.public_keys, _nothing_more, 0)
            fetched.add(opened)
            await fetched.check(read_seal(answer.headers, now), answer.body, now)
        except NotificationRefused as error:
            raise GatewayUnavailable(f"wechat's certificates: {error.message}") from error
        return opened

    async def _download(self, url: str, kind: str, digest: str) -> Sequence[BillLine]:
        """The bill at a URL from a genuine answer, at our gateway address; its hash vouches."""
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}"
        headers = self._headers("GET", target, b"")
        answer = await self._http.download(self._config.gateway_url + target, headers)
        if answer.status != 200:
            raise GatewayUnavailable(f"wechat answers {answer.status} to {parts.path}")
        if kind.upper() != "SHA1":
            raise GatewayUnavailable(f"wechat hashes its bill by {kind}, which is not documented")
        return await asyncio.to_thread(_checked_bill, answer.body, digest)


def received() -> Acknowledgement:
    """WeChat Pay's form of "received"."""
    return Acknowledgement(204, {}, b"")


def not_received(message: str, *, retry: bool) -> Acknowledgement:
    """WeChat Pay's form of "not received"."""
    body = msgspec.json.encode({"code": "FAIL", "message": message[:256]})
    return Acknowledgement(500 if retry else 401, {"Content-Type": "application/json"}, body)


def _checked_bill(content: bytes, digest: str) -> Sequence[BillLine]:
    found = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    if not hmac.compare_digest(found.encode(), digest.lower().encode()):
        raise GatewayUnavailable("wechat's bill does not have the hash that was announced")
    return read_bill(content)


async def _nothing_more() -> Sequence[Certificate]:
    return []


def _order(order_id: str) -> str:
    return f"{_ORDERS}/out-trade-no/{quote(order_id, safe='')}"


def _cut(text: str, most: int) -> str:
    """The text, or as many of its characters as fit in `most` bytes."""
    return text.encode()[:most].decode(errors="ignore")


def _path(target: str) -> str:
    return target.partition("?")[0]
