"""The one signature that both gateways use: RSA PKCS#1 v1.5 with SHA-256, in base64.

The law: the algorithm is fixed here and never taken from a message. A signature that is not base64,
not of the right length or not over these bytes is simply not valid: `is_signed` answers, it never
raises for what a stranger sent. A signature takes under a millisecond, so it may be made on the
event loop.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

# An RSA-4096 signature is 684 characters in base64; the gateways' keys are of 2048 bits.
_LONGEST: Final = 1024


def sign(key: RSAPrivateKey, data: bytes) -> str:
    """The signature over `data`, in base64 without line breaks."""
    return base64.b64encode(key.sign(data, PKCS1v15(), SHA256())).decode("ascii")


def is_signed(key: RSAPublicKey, data: bytes, signature: str) -> bool:
    """Whether `signature` (base64) was made over exactly `data` by the other half of `key`."""
    if len(signature) > _LONGEST:
        return False
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):  # ValueError: not even ASCII
        return False
    try:
        key.verify(raw, data, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
