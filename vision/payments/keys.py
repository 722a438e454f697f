"""Keys and certificates from files, checked before the server starts.

The law: a file that cannot be read, is not what its setting asks for, has expired or does not
belong to its neighbour ends the start with a SettingError that names the setting and the file, and
never shows what is in it. Only RSA keys of at least 2048 bits: both gateways use no others.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509 import Certificate, load_pem_x509_certificates

from vision.errors import SettingError

# What the gateways' signatures are made with; a shorter key is not from them.
LEAST_BITS: Final = 2048

# What `cryptography` raises for a file that is not what it should be.
_FOREIGN = (ValueError, TypeError, UnsupportedAlgorithm)


def read_private_key(setting: str, path: Path) -> RSAPrivateKey:
    """A private key without a password: PEM, or the bare base64 that Alipay's key tool writes.

    Raises SettingError.
    """
    content = _content(setting, path)
    try:
        if b"-----BEGIN" in content:
            key = load_pem_private_key(content, password=None)
        else:
            key = load_der_private_key(_bare(content), password=None)
    except _FOREIGN as error:
        raise SettingError(f"{setting}: {path} is not a private key without a password") from error
    if not isinstance(key, RSAPrivateKey) or key.key_size < LEAST_BITS:
        raise SettingError(f"{setting}: {path} is not an RSA key of {LEAST_BITS} bits or more")
    return key


def read_public_key(setting: str, path: Path) -> RSAPublicKey:
    """A public key: PEM, or bare base64. Raises SettingError."""
    content = _content(setting, path)
    try:
        if b"-----BEGIN" in content:
            key = load_pem_public_key(content)
        else:
            key = load_der_public_key(_bare(content))
    except _FOREIGN as error:
        raise SettingError(f"{setting}: {path} is not a public key") from error
    if not isinstance(key, RSAPublicKey) or key.key_size < LEAST_BITS:
        raise SettingError(f"{setting}: {path} is not an RSA key of {LEAST_BITS} bits or more")
    return key


def read_certificates(setting: str, path: Path) -> Sequence[Certificate]:
    """All certificates of a PEM file, at least one; whether they are valid now is not asked.

    Raises SettingError.
    """
    content = _content(setting, path)
    try:
        return load_pem_x509_certificates(content)
    except _FOREIGN as error:
        raise SettingError(f"{setting}: {path} is not a certificate in PEM form") from error


def read_certificate(setting: str, path: Path, now: float) -> Certificate:
    """The first certificate of a PEM file, valid at `now` (seconds) and with an RSA key.

    Raises SettingError.
    """
    certificate = read_certificates(setting, path)[0]
    moment = datetime.fromtimestamp(now, UTC)
    if moment > certificate.not_valid_after_utc:
        end = certificate.not_valid_after_utc.date()
        raise SettingError(f"{setting}: the certificate {path} expired on {end}")
    if moment < certificate.not_valid_before_utc:
        begin = certificate.not_valid_before_utc.date()
        raise SettingError(f"{setting}: the certificate {path} is valid only from {begin} on")
    if rsa_key(certificate) is None:
        raise SettingError(f"{setting}: the certificate {path} has no RSA key")
    return certificate


def rsa_key(certificate: Certificate) -> RSAPublicKey | None:
    """The certificate's key, or None when it is of another kind or too short."""
    try:
        key = certificate.public_key()
    except _FOREIGN:  # a curve that only some gateways know, such as SM2
        return None
    if not isinstance(key, RSAPublicKey) or key.key_size < LEAST_BITS:
        return None
    return key


def belong_together(private: RSAPrivateKey, public: RSAPublicKey | None) -> bool:
    """Whether the two are halves of one key."""
    return public is not None and (private.public_key().public_numbers() == public.public_numbers())


def _content(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingError(f"{setting}: {path} cannot be read: {reason}") from error


def _bare(content: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error as error:
        raise ValueError("neither PEM nor base64") from error
