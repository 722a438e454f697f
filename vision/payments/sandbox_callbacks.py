"""Notifications as the gateways send them, signed with the sandbox's own keys.

The law: what is made here passes the same verification as a real notification, byte for byte in the
gateways' form, under keys that only this data folder has. The keys are made once and kept, so that
a notification that was sent before a restart is still genuine after it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from vision.payments.alipay_signing import canonical
from vision.payments.gateway import Payment
from vision.payments.keys import LEAST_BITS, read_private_key
from vision.payments.moments import beijing_text, rfc3339_text
from vision.payments.money import yuan
from vision.payments.signatures import sign
from vision.payments.wechat_signing import ALGORITHM, PUBLIC_KEY_PREFIX, sealed_text

KEY_ID: Final = f"{PUBLIC_KEY_PREFIX}SANDBOX"
_FILE: Final = "sandbox.key"
_ASSOCIATED: Final = "transaction"


@dataclass(frozen=True, slots=True)
class Callback:
    """An HTTP request to send to our own endpoint of this channel's notifications."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class SandboxKeys:
    """The key that plays both gateways', and the API v3 key."""

    private: RSAPrivateKey = field(repr=False)
    api_v3_key: bytes = field(repr=False)


def keep_keys(folder: Path) -> SandboxKeys:
    """The keys of this folder, made at the first time (some 100 ms of computing: call it in a
    thread). Raises SettingError when the file is there but no key."""
    path = folder / _FILE
    if not path.exists():
        whole = path.with_suffix(".new")
        made = generate_private_key(public_exponent=65537, key_size=LEAST_BITS)
        with open(whole, "wb", opener=_private) as file:
            file.write(_pem(made))
        whole.rename(path)  # at once, so that a kill leaves no half of a key
    key = read_private_key("data-dir", path)
    return SandboxKeys(key, hashlib.sha256(_pem(key)).digest())


def wechat_paid(payment: Payment, keys: SandboxKeys, *, now: float, nonce: str) -> Callback:
    """WeChat Pay's `TRANSACTION.SUCCESS`. `nonce` is random, at least 12 characters."""
    resource = {
        "appid": payment.app,
        "mchid": payment.merchant,
        "out_trade_no": payment.order_id,
        "transaction_id": payment.transaction_id,
        "trade_type": "NATIVE",
        "trade_state": "SUCCESS",
        "success_time": rfc3339_text(payment.paid_at),
        "amount": {"total": payment.amount, "currency": payment.currency},
    }
    plain = msgspec.json.encode(resource)
    sealed = AESGCM(keys.api_v3_key).encrypt(nonce[:12].encode(), plain, _ASSOCIATED.encode())
    event = {
        "id": f"sandbox-{payment.transaction_id}",
        "create_time": rfc3339_text(payment.paid_at),
        "event_type": "TRANSACTION.SUCCESS",
        "resource_type": "encrypt-resource",
        "resource": {
            "algorithm": ALGORITHM,
            "ciphertext": base64.b64encode(sealed).decode(),
            "associated_data": _ASSOCIATED,
            "nonce": nonce[:12],
            "original_type": "transaction",
        },
    }
    body = msgspec.json.encode(event)
    timestamp = str(int(now))
    headers = {
        "Content-Type": "application/json",
        "Wechatpay-Serial": KEY_ID,
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Signature": sign(keys.private, sealed_text(timestamp, nonce, body)),
    }
    return Callback(headers, body)


def alipay_paid(payment: Payment, keys: SandboxKeys, *, now: float) -> Callback:
    """Alipay's `trade_status_sync` of a payment."""
    parameters = {
        "notify_id": f"sandbox-{payment.transaction_id}",
        "notify_type": "trade_status_sync",
        "notify_time": beijing_text(int(now * 1000)),
        "gmt_payment": beijing_text(payment.paid_at),
        "app_id": payment.app,
        "seller_id": payment.merchant,
        "out_trade_no": payment.order_id,
        "trade_no": payment.transaction_id,
        "trade_status": "TRADE_SUCCESS",
        "total_amount": yuan(payment.amount),
        "charset": "utf-8",
        "version": "1.0",
    }
    signature = sign(keys.private, canonical(parameters))
    body = urlencode({**parameters, "sign": signature, "sign_type": "RSA2"}).encode()
    return Callback({"Content-Type": "application/x-www-form-urlencoded"}, body)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _pem(key: RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
