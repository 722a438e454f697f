"""What the simulator of WeChat Pay signs, seals and writes.

The law: every message is genuine, but for the one thing that a test asked to be false. Written from
the documentation with `cryptography` directly, independent of the server's code.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding

from tests.gateways import keys
from tests.gateways.simulator import Order, Simulator

BEIJING = datetime.timezone(datetime.timedelta(hours=8))
STATES = {"open": "NOTPAY", "paid": "SUCCESS", "closed": "CLOSED"}
COLUMNS = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,"
    "交易状态,付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,"
    "充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,"
    "费率备注"
)


class WechatMessages(Simulator):
    """The gateway's voice."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.current = "platform1"
        self.bill_altered = False
        self.key_of = {
            name: keys.read_private(folder, name)
            for name in ("public", "platform1", "platform2", "stranger")
        }
        self.certificate_of = {
            name: keys.read_cert(folder, name)
            for name in ("merchant", "platform1", "platform2", "stranger")
        }

    def serial(self, name: str) -> str:
        if name == "public":
            return keys.PUBLIC_KEY_ID
        return f"{self.certificate_of[name].serial_number:040X}"

    def sign(self, name: str, data: bytes) -> str:
        signature = self.key_of[name].sign(data, padding.PKCS1v15(), hashes.SHA256())
        return base64.b64encode(signature).decode()

    def seal_headers(self, name: str, body: bytes, fault: str = "") -> dict[str, str]:
        """The signature's headers, false in the way that `fault` says."""
        stamp = str(int(time.time()) - (301 if fault == "old" else 0))
        if fault == "future":
            stamp = str(int(time.time()) + 330)
        nonce = os.urandom(12).hex()
        data = f"{stamp}\n{nonce}\n".encode() + body + b"\n"
        signature = self.sign("stranger" if fault == "other_key" else name, data)
        if fault == "signtest":
            signature = "WECHATPAY/SIGNTEST/" + signature[19:]
        serial = "stranger" if fault == "unknown_serial" else name
        return {
            "Wechatpay-Timestamp": stamp,
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Signature": signature,
            "Wechatpay-Serial": self.serial(serial),
            "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
        }

    def seal(self, plain: bytes, associated: str, key: str = keys.API_V3_KEY) -> dict[str, str]:
        nonce = os.urandom(6).hex()
        sealed = AESGCM(key.encode()).encrypt(nonce.encode(), plain, associated.encode())
        return {
            "algorithm": "AEAD_AES_256_GCM",
            "nonce": nonce,
            "associated_data": associated,
            "ciphertext": base64.b64encode(sealed).decode(),
        }

    def transaction(self, order: Order) -> dict[str, Any]:
        """An order as queries and notifications show it."""
        shown: dict[str, Any] = {
            "appid": keys.WECHAT_APP,
            "mchid": keys.WECHAT_MERCHANT,
            "out_trade_no": order.number,
            "trade_state": "REFUND" if order.refunds else STATES[order.state],
            "trade_state_desc": "模拟",
            "promotion_detail": [],
        }
        if order.state == "paid":
            shown["transaction_id"] = order.transaction
            shown["trade_type"] = "NATIVE"
            shown["bank_type"] = "OTHERS"
            moment = datetime.datetime.fromtimestamp(int(order.paid_at), BEIJING)
            shown["success_time"] = moment.isoformat()
            shown["payer"] = {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"}
            shown["amount"] = {
                "total": order.amount,
                "payer_total": max(order.amount - 1, 0),  # a coupon paid one fen
                "currency": "CNY",
                "payer_currency": "CNY",
            }
        return shown

    def notification(self, order: Order, variant: str) -> tuple[dict[str, str], bytes]:
        shown = self.transaction(order)
        if variant == "wrong_amount":
            shown["amount"]["total"] -= 1
        elif variant == "wrong_merchant":
            shown["mchid"] = "1900000110"
        elif variant == "other_app":
            shown["appid"] = "wx0000000000000000"
        elif variant == "text_amount":
            shown["amount"]["total"] = str(order.amount)
        kind, original, associated = "TRANSACTION.SUCCESS", "transaction", "transaction"
        if variant.startswith("refund:"):
            refund_id = variant.removeprefix("refund:")
            shown = self.refunded(order, refund_id, "refund_status")
            kind, original, associated = "REFUND.SUCCESS", "refund", ""
        key = keys.API_V3_KEY[::-1] if variant == "other_seal" else keys.API_V3_KEY
        event = {
            "id": hashlib.sha1(f"{order.number}{kind}".encode()).hexdigest(),
            "create_time": datetime.datetime.now(BEIJING).isoformat(timespec="seconds"),
            "event_type": "SOMETHING.NEW" if variant == "other_event" else kind,
            "resource_type": "encrypt-resource",
            "summary": "支付成功",
            "resource": {
                "original_type": original,
                **self.seal(json.dumps(shown).encode(), associated, key),
            },
        }
        body = json.dumps(event, ensure_ascii=False, indent=1).encode()
        with_key = "public" if variant == "public" else self.current
        headers = {"Content-Type": "application/json"} | self.seal_headers(with_key, body, variant)
        if variant == "altered":
            body = body.replace(b"SUCCESS", b"SUCCESs")
        return headers, body

    def refunded(self, order: Order, refund_id: str, name: str) -> dict[str, Any]:
        return {
            "out_trade_no": order.number,
            "transaction_id": order.transaction,
            "out_refund_no": refund_id,
            "refund_id": f"50{refund_id[:20]}",
            name: "SUCCESS",
            "amount": {
                "total": order.amount,
                "refund": order.refunds[refund_id],
                "payer_total": order.amount,
                "payer_refund": order.refunds[refund_id],
                "currency": "CNY",
            },
        }

    async def do_rotate(self) -> None:
        """From now on it signs with the other certificate, and lists both."""
        self.current = "platform2"

    async def do_alter_bill(self) -> None:
        """The next bills are not what was announced."""
        self.bill_altered = True

    def certificate(self, name: str) -> dict[str, Any]:
        certificate = self.certificate_of[name]
        plain = certificate.public_bytes(Encoding.PEM)
        return {
            "serial_no": self.serial(name),
            "effective_time": certificate.not_valid_before_utc.isoformat(),
            "expire_time": certificate.not_valid_after_utc.isoformat(),
            "encrypt_certificate": self.seal(plain, "certificate"),
        }

    def bill_file(self) -> bytes:
        lines = ["\ufeff" + COLUMNS]
        for order in self.orders.values():
            if order.transaction:
                lines.append(_row(order, "SUCCESS", "", order.amount, 0))
                lines += [_row(order, "REFUND", *each, 0) for each in _refunds(order)]
        lines.append(
            "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额"
        )
        lines.append("`1,`0.00,`0.00,`0.00,`0.00000,`0.00")
        return "\r\n".join(lines).encode()


def _refunds(order: Order) -> list[tuple[str, int]]:
    return list(order.refunds.items())


def _row(order: Order, state: str, refund_id: str, amount: int, _: int) -> str:
    cells = dict.fromkeys(COLUMNS.split(","), "")
    yuan = f"{amount // 100}.{amount % 100:02d}"
    cells |= {
        "交易时间": "2026-01-01 00:00:00",
        "公众账号ID": keys.WECHAT_APP,
        "商户号": keys.WECHAT_MERCHANT,
        "微信订单号": order.transaction,
        "商户订单号": order.number,
        "交易状态": state,
        "货币种类": "CNY",
        "商户退款单号": refund_id,
        "商品名称": "a name, with a comma",
        "订单金额": yuan if state == "SUCCESS" else "0.00",
        "申请退款金额": "0.00" if state == "SUCCESS" else yuan,
    }
    return ",".join(f"`{cell}" for cell in cells.values())
