"""A simulator of WeChat Pay API v3, Native, written from its documentation.

The law: it believes nothing that is not signed by the merchant's key, signs every answer, and seals
what it seals with the API v3 key. It signs with its public key when the request asks for that in
`Wechatpay-Serial`, and with its current certificate otherwise; a rotation changes the latter.

As a process: `python -m tests.gateways.wechat --port 0 --keys FOLDER` (see `keys.make_wechat`).
Faults of a call (`place`, `query`, `close`, `refund`, `query_refund`, `bill`, `certificates`):
`hang` (nothing was done), `hang_after` (it was), `notify_before`, `pay_before`, `altered`,
`other_key`, `old`, `unsigned`, `signtest`, `another_order`, `status:503`,
`code:429:FREQUENCY_LIMITED`.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.gateways import keys
from tests.gateways.simulator import GatewayHandler, Order, arguments, serve
from tests.gateways.wechat_messages import WechatMessages

AUTHORIZATION = re.compile(r'(\w+)="([^"]*)"')
NUMBER = re.compile(r"[A-Za-z0-9_\-|*]{6,32}")


class Refusal(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class Wechat(WechatMessages):
    """The gateway."""

    def check(self, method: str, uri: str, header: str, body: bytes) -> None:
        """The merchant's signature. Raises Refusal."""
        scheme, _, rest = header.partition(" ")
        given = dict(AUTHORIZATION.findall(rest))
        merchant = self.certificate_of["merchant"]
        lines = (method, uri, given.get("timestamp", ""), given.get("nonce_str", ""))
        data = "".join(f"{line}\n" for line in lines).encode() + body + b"\n"
        try:
            if scheme != "WECHATPAY2-SHA256-RSA2048" or given["mchid"] != keys.WECHAT_MERCHANT:
                raise Refusal(401, "SIGN_ERROR")
            if int(given["serial_no"], 16) != merchant.serial_number:
                raise Refusal(401, "SIGN_ERROR")
            if abs(int(given["timestamp"]) - time.time()) > 300:
                raise Refusal(401, "SIGN_ERROR")
            signature = base64.b64decode(given["signature"])
            key: Any = merchant.public_key()
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        except (KeyError, ValueError, InvalidSignature):
            raise Refusal(401, "SIGN_ERROR") from None

    async def answer(self, call: str, number: str, given: dict[str, Any]) -> dict[str, Any] | None:
        """Do what is asked; None is 204."""
        action = getattr(self, f"_{call}")
        result: dict[str, Any] | None = action(number, given)
        return result

    def _place(self, _: str, given: dict[str, Any]) -> dict[str, Any]:
        if given["mchid"] != keys.WECHAT_MERCHANT or given["appid"] != keys.WECHAT_APP:
            raise Refusal(400, "APPID_MCHID_NOT_MATCH")
        number, amount = given["out_trade_no"], given["amount"]
        right = NUMBER.fullmatch(number) and type(amount["total"]) is int and amount["total"] > 0
        if not right or amount["currency"] != "CNY" or "?" in given["notify_url"]:
            raise Refusal(400, "PARAM_ERROR")
        if len(given["description"].encode()) > 127 or not given["description"]:
            raise Refusal(400, "PARAM_ERROR")
        expires = datetime.datetime.fromisoformat(given["time_expire"])
        if expires.utcoffset() is None:
            raise Refusal(400, "PARAM_ERROR")
        order = self.orders.get(number)
        if order is None:
            order = Order(number, amount["total"], given, given["notify_url"])
            self.orders[number] = order
        if order.state != "open":
            raise Refusal(400, "ORDERPAID" if order.state == "paid" else "ORDER_CLOSED")
        if order.content != given:
            raise Refusal(403, "OUT_TRADE_NO_USED")
        return {"code_url": f"weixin://wxpay/bizpayurl?pr={number[:12]}"}

    def _query(self, number: str, _: dict[str, Any]) -> dict[str, Any]:
        return self.transaction(self._find(number, "ORDER_NOT_EXIST"))

    def _close(self, number: str, given: dict[str, Any]) -> None:
        if given != {"mchid": keys.WECHAT_MERCHANT}:
            raise Refusal(400, "PARAM_ERROR")
        order = self._find(number, "ORDER_NOT_EXIST")
        if order.state == "paid":
            raise Refusal(400, "ORDERPAID")
        order.state = "closed"

    def _refund(self, _: str, given: dict[str, Any]) -> dict[str, Any]:
        found = [o for o in self.orders.values() if o.transaction == given["transaction_id"]]
        if not found:
            raise Refusal(404, "RESOURCE_NOT_EXISTS")
        order, number, amount = found[0], given["out_refund_no"], given["amount"]
        if amount["total"] != order.amount:
            raise Refusal(400, "INVALID_REQUEST")
        if order.refunds.get(number, amount["refund"]) != amount["refund"]:
            raise Refusal(400, "INVALID_REQUEST")
        if sum((order.refunds | {number: amount["refund"]}).values()) > order.amount:
            raise Refusal(403, "NOT_ENOUGH")
        order.refunds[number] = amount["refund"]
        return self.refunded(order, number, "status")

    def _query_refund(self, number: str, _: dict[str, Any]) -> dict[str, Any]:
        for order in self.orders.values():
            if number in order.refunds:
                return self.refunded(order, number, "status")
        raise Refusal(404, "RESOURCE_NOT_EXISTS")

    def _certificates(self, _: str, __: dict[str, Any]) -> dict[str, Any]:
        names = ["platform1"] + (["platform2"] if self.current == "platform2" else [])
        return {"data": [self.certificate(name) for name in names]}

    def _bill(self, _: str, __: dict[str, Any]) -> dict[str, Any]:
        if not any(order.transaction for order in self.orders.values()):
            raise Refusal(400, "NO_STATEMENT_EXIST")
        return {
            "download_url": "https://api.mch.weixin.qq.com/v3/billdownload/file?token=a%2Fb",
            "hash_type": "SHA1",
            "hash_value": hashlib.sha1(self.bill_file()).hexdigest(),
        }

    def _find(self, number: str, code: str) -> Order:
        if number not in self.orders:
            raise Refusal(404, code)
        return self.orders[number]


class Call(GatewayHandler):
    """One call; `call` is its name here."""

    simulator: Wechat

    def initialize(self, simulator: Wechat, call: str) -> None:
        super().initialize(simulator)
        self.call = call

    async def get(self, number: str = "") -> None:
        await self._handle(number)

    async def post(self, number: str = "") -> None:
        await self._handle(number)

    async def _handle(self, number: str) -> None:
        simulator = self.simulator
        simulator.seen.append(self.call)
        fault = simulator.take_fault(self.call)
        if fault == "hang":
            await self.hang()
        if fault == "pay_before":
            simulator.pay(simulator.orders[number])
        status, content = await self._answer(number, fault)
        if fault == "hang_after":
            await self.hang()
        if fault == "notify_before":
            order = simulator.orders[json.loads(self.request.body)["out_trade_no"]]
            simulator.pay(order)
            await simulator.send(order)
        if fault.startswith("status:"):
            self.reply(int(fault.partition(":")[2]), {}, b"<html>somewhere on the way</html>")
        else:
            self._signed(status, content, fault)

    def _signed(self, status: int, content: Any, fault: str) -> None:
        body = b"" if content is None else json.dumps(content, ensure_ascii=False).encode()
        asked = self.request.headers.get("Wechatpay-Serial")
        name = "public" if asked == keys.PUBLIC_KEY_ID else self.simulator.current
        headers = self.simulator.seal_headers(name, body, fault)
        if status == 401 or fault == "unsigned":
            headers = {}
        if fault == "altered":
            body = body.replace(b"{", b"{ ", 1)
        self.reply(status, {"Content-Type": "application/json"} | headers, body)

    async def _answer(self, number: str, fault: str) -> tuple[int, Any]:
        request = self.request
        try:
            header = request.headers.get("Authorization", "")
            self.simulator.check(str(request.method), str(request.uri), header, request.body)
            if fault.startswith("code:"):
                return int(fault.split(":")[1]), {"code": fault.split(":")[2]}
            given = json.loads(request.body or b"{}")
            content = await self.simulator.answer(self.call, number, given)
            if fault == "another_order":
                content = (content or {}) | {"out_trade_no": "another", "out_refund_no": "another"}
        except Refusal as refusal:
            return refusal.status, {"code": refusal.code, "message": "模拟的错误"}
        return (204 if content is None else 200), content


class Download(GatewayHandler):
    """The bill's file: asked for with a signature, answered without one."""

    simulator: Wechat

    def get(self) -> None:
        request, body = self.request, self.simulator.bill_file()
        if self.simulator.bill_altered:
            body = body.replace(b"SUCCESS", b"REVOKED")
        try:
            header = request.headers.get("Authorization", "")
            self.simulator.check("GET", str(request.uri), header, b"")
        except Refusal as refusal:
            self.reply(refusal.status, {}, b"")
        else:
            self.reply(200, {}, body)


def main() -> None:
    """Serve until ended."""
    given = arguments()
    simulator = Wechat(Path(given.keys))
    paths = {
        "place": r"/v3/pay/transactions/native",
        "query": r"/v3/pay/transactions/out-trade-no/([^/]+)",
        "close": r"/v3/pay/transactions/out-trade-no/([^/]+)/close",
        "refund": r"/v3/refund/domestic/refunds",
        "query_refund": r"/v3/refund/domestic/refunds/([^/]+)",
        "certificates": r"/v3/certificates",
        "bill": r"/v3/bill/tradebill",
    }
    routes: list[Any] = [
        (path, Call, {"simulator": simulator, "call": call}) for call, path in paths.items()
    ]
    routes.append((r"/v3/billdownload/file", Download, {"simulator": simulator}))
    serve(simulator, routes, given.port)


if __name__ == "__main__":
    main()
