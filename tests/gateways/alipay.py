"""A simulator of Alipay's gateway, face to face, written from its documentation.

The law: it believes nothing that is not signed by the app's key, and signs the response node as it
writes it: with spaces, escapes and its own order of keys, so that only the raw text verifies. As at
Alipay, a trade exists only after somebody has scanned the code (`do_scan`, or paying).

As a process: `python -m tests.gateways.alipay --port 0 --keys FOLDER` (see `keys.make_alipay`);
`--mode certificate` asks for certificates' numbers and names its own. Faults of a call
(`precreate`, `query`, `close`, `cancel`, `refund`, `refund_query`, `bill`): `hang`, `hang_after`,
`notify_before`, `pay_before`, `altered`, `other_key`, `unsigned`, `newer`, `nothing_moved`,
`another_order`, `status:502`, `code:20000:isp.unknow-error`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.gateways import keys
from tests.gateways.alipay_messages import (
    bill_file,
    certificate_sn,
    clock,
    moment,
    root_sn,
    wrong,
    yuan,
)
from tests.gateways.simulator import GatewayHandler, Order, Simulator, arguments, serve

CALLS = {
    "alipay.trade.precreate": "precreate",
    "alipay.trade.query": "query",
    "alipay.trade.close": "close",
    "alipay.trade.cancel": "cancel",
    "alipay.trade.refund": "refund",
    "alipay.trade.fastpay.refund.query": "refund_query",
    "alipay.data.dataservice.bill.downloadurl.query": "bill",
}


class Refusal(Exception):
    """A business failure, or another code."""

    def __init__(self, sub_code: str, code: str = "40004") -> None:
        super().__init__(sub_code)
        self.sub_code = sub_code
        self.code = code


class Alipay(Simulator):
    """The gateway."""

    def __init__(self, folder: Path, mode: str) -> None:
        super().__init__()
        self.certificates = mode == "certificate"
        self.scanned: set[str] = set()
        self.current = "alipay"
        names = ("alipay", "newer", "stranger")
        self.key_of = {name: keys.read_private(folder, name) for name in names}
        self.sn_of = {name: certificate_sn(keys.read_cert(folder, name)) for name in names}
        self.app = keys.read_cert(folder, "app")
        self.root_sn = root_sn([keys.read_cert(folder, "root")])

    def sign(self, name: str, data: bytes) -> str:
        signature = self.key_of[name].sign(data, padding.PKCS1v15(), hashes.SHA256())
        return base64.b64encode(signature).decode()

    def pay(self, order: Order) -> None:
        self.scanned.add(order.number)
        super().pay(order)

    def notification(self, order: Order, variant: str) -> tuple[dict[str, str], bytes]:
        given = {
            "gmt_create": clock(order.paid_at - 2),
            "charset": "utf-8",
            "gmt_payment": clock(order.paid_at),
            "notify_time": clock(time.time()),
            "subject": "一天 & more=less + 100%",
            "buyer_id": "2088102116773037",
            "invoice_amount": yuan(order.amount),
            "version": "1.0",
            "notify_id": f"{order.transaction}{variant}",
            "notify_type": "trade_status_sync",
            "out_trade_no": order.number,
            "total_amount": yuan(order.amount),
            "trade_status": "TRADE_SUCCESS",
            "trade_no": order.transaction,
            "auth_app_id": keys.ALIPAY_APP,
            "receipt_amount": yuan(order.amount),
            "point_amount": "0.00",
            "app_id": keys.ALIPAY_APP,
            "seller_id": keys.ALIPAY_SELLER,
        }
        given |= wrong(variant, order)
        data = "&".join(f"{name}={given[name]}" for name in sorted(given)).encode()
        signature = self.sign("stranger" if variant == "other_key" else self.current, data)
        if variant == "altered":
            given["total_amount"] = "0.01"
        kind = "RSA" if variant == "other_algorithm" else "RSA2"
        body = urlencode(given | {"sign": signature, "sign_type": kind}).encode()
        return {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, body

    async def do_scan(self, order: str) -> None:
        """Somebody scans the code: the trade exists, unpaid."""
        self.scanned.add(order)

    async def do_rotate(self) -> None:
        """From now on it signs with its newer certificate."""
        self.current = "newer"

    def check(self, given: dict[str, str]) -> None:
        """The app's signature and the common parameters. Raises Refusal."""
        signed = {name: value for name, value in given.items() if name != "sign" and value}
        data = "&".join(f"{name}={signed[name]}" for name in sorted(signed)).encode()
        key: Any = self.app.public_key()
        try:
            signature = base64.b64decode(given["sign"])
            key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            off = abs(moment(given["timestamp"]) - time.time())
        except (KeyError, ValueError, InvalidSignature):
            raise Refusal("isv.invalid-signature", "40002") from None
        common = (given["app_id"], given["charset"], given["sign_type"], given["version"])
        if common != (keys.ALIPAY_APP, "utf-8", "RSA2", "1.0") or off > 600:
            raise Refusal("isv.invalid-parameter", "40002")
        numbers = (given.get("app_cert_sn"), given.get("alipay_root_cert_sn"))
        if self.certificates and numbers != (certificate_sn(self.app), self.root_sn):
            raise Refusal("isv.invalid-app-cert-sn", "40002")

    def do(self, call: str, given: dict[str, str]) -> dict[str, Any]:
        """What is asked; the fields of the answer. Raises Refusal."""
        content = json.loads(given["biz_content"])
        action = getattr(self, f"_{call}")
        result: dict[str, Any] = action(content, given)
        return result

    def _precreate(self, content: dict[str, str], given: dict[str, str]) -> dict[str, Any]:
        number = content["out_trade_no"]
        moment(content["time_expire"])
        whole, _, part = content["total_amount"].partition(".")
        if len(part) != 2 or not content["subject"]:
            raise Refusal("ACQ.INVALID_PARAMETER")
        amount = int(whole) * 100 + int(part)
        order = self.orders.setdefault(number, Order(number, amount, content, given["notify_url"]))
        if order.state != "open":
            paid = order.state == "paid"
            raise Refusal("ACQ.TRADE_HAS_SUCCESS" if paid else "ACQ.TRADE_HAS_CLOSE")
        if order.content != content:
            raise Refusal("ACQ.CONTEXT_INCONSISTENT")
        return {"out_trade_no": number, "qr_code": f"https://qr.alipay.com/{number[:20]}"}

    def _find(self, content: dict[str, str]) -> Order:
        number = content["out_trade_no"]
        if number not in self.orders or number not in self.scanned:
            raise Refusal("ACQ.TRADE_NOT_EXIST")
        return self.orders[number]

    def _query(self, content: dict[str, str], _: dict[str, str]) -> dict[str, Any]:
        order = self._find(content)
        shown = {
            "trade_no": order.transaction or "2026010122001400000000000001",
            "out_trade_no": order.number,
            "buyer_logon_id": "ab***@example.com",
            "trade_status": "WAIT_BUYER_PAY",
            "total_amount": yuan(order.amount),
            "fund_bill_list": [{"amount": yuan(order.amount), "fund_channel": '}"]'}],
        }
        if order.state == "closed":
            shown["trade_status"] = "TRADE_CLOSED"
        elif order.state == "paid":
            whole = sum(order.refunds.values()) == order.amount
            shown["trade_status"] = "TRADE_CLOSED" if whole else "TRADE_SUCCESS"
            shown["send_pay_date"] = clock(order.paid_at)
        return shown

    def _close(self, content: dict[str, str], _: dict[str, str]) -> dict[str, Any]:
        order = self._find(content)
        if order.state != "open":
            raise Refusal("ACQ.TRADE_STATUS_ERROR")
        order.state = "closed"
        return {"out_trade_no": order.number}

    def _cancel(self, content: dict[str, str], _: dict[str, str]) -> dict[str, Any]:
        order = self.orders[content["out_trade_no"]]
        action = "refund" if order.state == "paid" else "close"
        order.state = "closed"
        return {"out_trade_no": order.number, "retry_flag": "N", "action": action}

    def _refund(self, content: dict[str, str], _: dict[str, str]) -> dict[str, Any]:
        order, number = self._find(content), content["out_request_no"]
        amount = round(float(content["refund_amount"]) * 100)
        fresh = number not in order.refunds
        if order.state != "paid" or order.refunds.get(number, amount) != amount:
            raise Refusal("ACQ.DISCORDANT_REPEAT_REQUEST")
        if sum((order.refunds | {number: amount}).values()) > order.amount:
            raise Refusal("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
        order.refunds[number] = amount
        total = sum(order.refunds.values())
        return {
            "trade_no": order.transaction,
            "out_trade_no": order.number,
            "fund_change": "Y" if fresh else "N",
            "refund_fee": yuan(total),
        }

    def _refund_query(self, content: dict[str, str], _: dict[str, str]) -> dict[str, Any]:
        order, number = self._find(content), content["out_request_no"]
        if number not in order.refunds:
            return {}
        return {
            "out_request_no": number,
            "refund_amount": yuan(order.refunds[number]),
            "refund_status": "REFUND_SUCCESS",
        }

    def _bill(self, _: dict[str, str], __: dict[str, str]) -> dict[str, Any]:
        if not any(order.transaction for order in self.orders.values()):
            raise Refusal("isp.bill_not_exist")
        return {"bill_download_url": f"http://127.0.0.1:{self.port}/bill.zip?sign=a%2Bb"}


class Call(GatewayHandler):
    """`POST /gateway.do`."""

    simulator: Alipay

    async def post(self) -> None:
        query = dict(parse_qsl(self.request.query, keep_blank_values=True))
        given = query | dict(parse_qsl(self.request.body.decode(), keep_blank_values=True))
        call = CALLS[given["method"]]
        self.simulator.seen.append(call)
        fault = self.simulator.take_fault(call)
        if fault == "hang":
            await self.hang()
        number = json.loads(given["biz_content"]).get("out_trade_no", "")
        if fault == "pay_before":
            self.simulator.pay(self.simulator.orders[number])
        node = self._node(call, given, fault)
        if fault == "hang_after":
            await self.hang()
        if fault == "notify_before":
            self.simulator.pay(self.simulator.orders[number])
            await self.simulator.send(self.simulator.orders[number])
        if fault.startswith("status:"):
            self.reply(int(fault.partition(":")[2]), {}, b"<html>somewhere on the way</html>")
        else:
            self.reply(200, {}, self._signed(given["method"], node, fault))

    def _node(self, call: str, given: dict[str, str], fault: str) -> dict[str, Any]:
        try:
            self.simulator.check(given)
            if fault.startswith("code:"):
                _, code, sub_code = fault.split(":")
                return {"code": code, "msg": "模拟的错误", "sub_code": sub_code}
            if fault == "nothing_moved":
                return {"msg": "Success", "code": "10000", "fund_change": "N"}
            node = {"msg": "Success", "code": "10000"} | self.simulator.do(call, given)
            return node | ({"out_trade_no": "another"} if fault == "another_order" else {})
        except Refusal as refusal:
            return {"code": refusal.code, "msg": "Failed", "sub_code": refusal.sub_code}

    def _signed(self, method: str, node: dict[str, Any], fault: str) -> bytes:
        """The node with escapes and spaces that no JSON writer of the server would choose."""
        text = json.dumps(node, ensure_ascii=True, separators=(" , ", " : ")).replace("/", "\\/")
        name = "stranger" if fault == "other_key" else self.simulator.current
        signature = self.simulator.sign("newer" if fault == "newer" else name, text.encode())
        if fault == "altered":
            text = text.replace(" : ", ":", 1)
        parts = [f'"{method.replace(".", "_")}_response":{text}']
        if self.simulator.certificates:
            number = self.simulator.sn_of["newer" if fault == "newer" else name]
            parts.append(f'"alipay_cert_sn":"{number}"')
        if fault != "unsigned":
            parts.append(f'"sign":"{signature}"')
        return ("{" + ",".join(parts) + "}").encode()


class Bill(GatewayHandler):
    """The bill's file."""

    simulator: Alipay

    async def get(self) -> None:
        body = await asyncio.to_thread(bill_file, self.simulator.orders.values())
        self.reply(200, {"Content-Type": "application/zip"}, body)


def main() -> None:
    """Serve until ended."""
    given = arguments()
    simulator = Alipay(Path(given.keys), given.mode)
    routes: list[Any] = [
        (r"/gateway.do", Call, {"simulator": simulator}),
        (r"/bill.zip", Bill, {"simulator": simulator}),
    ]
    serve(simulator, routes, given.port)


if __name__ == "__main__":
    main()
