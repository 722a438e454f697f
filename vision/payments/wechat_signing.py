"""How WeChat Pay API v3 signs and seals: what must be true before a byte of a message is parsed.

The law: what WeChat Pay sends is genuine when its time is within five minutes of ours, its serial
names a key that we trust, and the signature is over time, nonce and the raw body. Only then may it
be read. A sealed resource (AES-256-GCM under the API v3 key) opens whole or not at all. Probes
(`WECHATPAY/SIGNTEST/...`) get no treatment of their own: they fail like any false signature.

Pure: times and nonces come in as arguments. Source: payment-protocols, "WeChat Pay API v3, Native".
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vision.payments.errors import NotificationRefused
from vision.payments.signatures import is_signed, sign

SCHEME: Final = "WECHATPAY2-SHA256-RSA2048"
ALGORITHM: Final = "AEAD_AES_256_GCM"
# WeChat Pay's own bound: older messages may be replayed ones.
MOST_SKEW: Final = 300
# Its keys are named like this; everything else is a certificate's serial number in hex.
PUBLIC_KEY_PREFIX: Final = "PUB_KEY_ID_"

_SERIAL: Final = re.compile(r"[0-9A-Fa-f]{1,64}")
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Merchant:
    """Who signs: the merchant's number, its certificate's serial number and its private key."""

    number: str
    serial: str
    key: RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Seal:
    """The four headers of a signed message."""

    timestamp: str
    nonce: str
    serial: str
    signature: str


def authorization(
    merchant: Merchant, method: str, target: str, body: bytes, *, timestamp: int, nonce: str
) -> str:
    """The `Authorization` header of a request; `target` is its path with query, as sent."""
    head = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode()
    signature = sign(merchant.key, head + body + b"\n")
    return (
        f'{SCHEME} mchid="{merchant.number}",nonce_str="{nonce}",timestamp="{timestamp}",'
        f'serial_no="{merchant.serial}",signature="{signature}"'
    )


def read_seal(headers: Mapping[str, str], now: float) -> Seal:
    """The signature's headers (names in any case), if they are there and of this time.

    `now` is in seconds since the epoch. Raises NotificationRefused.
    """
    found = {name.lower(): value for name, value in headers.items()}
    seal = Seal(
        timestamp=found.get("wechatpay-timestamp", ""),
        nonce=found.get("wechatpay-nonce", ""),
        serial=normal_serial(found.get("wechatpay-serial", "")),
        signature=found.get("wechatpay-signature", ""),
    )
    if not (seal.timestamp and seal.nonce and seal.serial and seal.signature):
        raise NotificationRefused("a Wechatpay-* header of the signature is missing or malformed")
    if not _TIMESTAMP.fullmatch(seal.timestamp):
        raise NotificationRefused("Wechatpay-Timestamp is not a time")
    if abs(int(seal.timestamp) - now) > MOST_SKEW:
        off = int(seal.timestamp) - int(now)
        raise NotificationRefused(f"Wechatpay-Timestamp is {off:+} s off our clock")
    return seal


def check_seal(seal: Seal, body: bytes, key: RSAPublicKey) -> None:
    """Pass when the seal is over exactly this body. Raises NotificationRefused."""
    if not is_signed(key, sealed_text(seal.timestamp, seal.nonce, body), seal.signature):
        raise NotificationRefused("Wechatpay-Signature is false")


def sealed_text(timestamp: str, nonce: str, body: bytes) -> bytes:
    """What a response's or a notification's signature is over."""
    return f"{timestamp}\n{nonce}\n".encode() + body + b"\n"


def normal_serial(text: str) -> str:
    """A key id as it is; a certificate's serial number in one spelling; "" for neither."""
    if text.startswith(PUBLIC_KEY_PREFIX):
        return text
    return f"{int(text, 16):X}" if _SERIAL.fullmatch(text) else ""


def unseal(
    api_v3_key: bytes, *, algorithm: str, nonce: str, associated_data: str, ciphertext: str
) -> bytes:
    """The plain bytes of a resource. Raises NotificationRefused when it does not open whole."""
    if algorithm != ALGORITHM:
        raise NotificationRefused("the resource is sealed in a way that WeChat Pay does not use")
    try:
        sealed = base64.b64decode(ciphertext, validate=True)
        return AESGCM(api_v3_key).decrypt(nonce.encode(), sealed, associated_data.encode())
    except (InvalidTag, binascii.Error, ValueError) as error:  # ValueError: the nonce's length
        raise NotificationRefused(
            "the resource does not open with our API v3 key (wechat-api-v3-key)"
        ) from error
