"""What an Alipay merchant is configured with, checked as a whole before the server starts.

The law: none of the `alipay-*` settings means no Alipay. There are two modes, and exactly one is
chosen by the files that are given: Alipay's public key, or three certificates. Some settings
without the rest, a key that does not belong to its certificate, an expired certificate, one that
the root does not vouch for, or our own public key in place of Alipay's (the commonest mistake) is a
SettingError that names the setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509 import Certificate

from vision.errors import SettingError
from vision.payments.alipay_signing import certificate_number, root_number
from vision.payments.exchange import Pace
from vision.payments.keys import (
    belong_together,
    read_certificate,
    read_certificates,
    read_private_key,
    read_public_key,
    rsa_key,
)
from vision.payments.wechat_config import checked_notify_url
from vision.settings import Settings

GATEWAY_URL: Final = "https://openapi.alipay.com/gateway.do"
# In public-key mode Alipay's key has no number.
NO_NUMBER: Final = ""


@dataclass(frozen=True, slots=True)
class AlipayFiles:
    """The `alipay-*` settings as they were written; empty or None means not given."""

    app_id: str = ""
    seller_id: str = ""
    private_key: Path | None = None
    public_key: Path | None = None
    app_certificate: Path | None = None
    certificate: Path | None = None
    root_certificate: Path | None = None
    notify_url: str = ""
    gateway_url: str = GATEWAY_URL

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The settings of this gateway."""
        return cls(
            app_id=settings.alipay_app_id,
            seller_id=settings.alipay_seller_id,
            private_key=settings.alipay_private_key,
            public_key=settings.alipay_public_key,
            app_certificate=settings.alipay_app_certificate,
            certificate=settings.alipay_certificate,
            root_certificate=settings.alipay_root_certificate,
            notify_url=settings.alipay_notify_url,
            gateway_url=settings.alipay_gateway_url,
        )


@dataclass(frozen=True, slots=True)
class AlipayConfig:
    """A merchant, ready to use.

    `alipay_keys` are Alipay's public keys by the numbers of their certificates, or one under
    `NO_NUMBER`; `numbers` are the parameters that certificate mode adds to each request.
    """

    app: str
    seller: str
    key: RSAPrivateKey = field(repr=False)
    alipay_keys: Mapping[str, RSAPublicKey] = field(repr=False)
    notify_url: str
    numbers: Mapping[str, str] = field(default_factory=dict)
    gateway_url: str = GATEWAY_URL
    pace: Pace = field(default_factory=Pace)


def load_alipay(files: AlipayFiles, now: float) -> AlipayConfig | None:
    """The merchant of these settings; None when none of them is given.

    `now` is in seconds since the epoch. Raises SettingError.
    """
    if not _given(files) or files.private_key is None:
        return None
    key = read_private_key("alipay-private-key", files.private_key)
    if files.public_key is not None:
        numbers: Mapping[str, str] = {}
        keys: Mapping[str, RSAPublicKey] = {NO_NUMBER: _alipay_key(files.public_key, key)}
    else:
        numbers, keys = _from_certificates(files, key, now)
    return AlipayConfig(
        app=files.app_id,
        seller=files.seller_id,
        key=key,
        alipay_keys=keys,
        notify_url=checked_notify_url("alipay-notify-url", files.notify_url),
        numbers=numbers,
        gateway_url=files.gateway_url,
    )


def _given(files: AlipayFiles) -> bool:
    """Whether the merchant is configured. Raises SettingError when it is only in part."""
    needed = {
        "alipay-app-id": files.app_id,
        "alipay-seller-id": files.seller_id,
        "alipay-private-key": files.private_key,
        "alipay-notify-url": files.notify_url,
    }
    certificates = {
        "alipay-app-certificate": files.app_certificate,
        "alipay-certificate": files.certificate,
        "alipay-root-certificate": files.root_certificate,
    }
    if not any((*needed.values(), *certificates.values(), files.public_key)):
        return False
    if files.public_key is not None and any(certificates.values()):
        raise SettingError("alipay-public-key: not together with certificates; choose one mode")
    if any(certificates.values()):
        needed.update(certificates)
    else:
        needed["alipay-public-key"] = files.public_key
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise SettingError(f"{missing[0]}: is needed with the other alipay-* settings")
    return True


def _alipay_key(path: Path, ours: RSAPrivateKey) -> RSAPublicKey:
    key = read_public_key("alipay-public-key", path)
    if belong_together(ours, key):
        raise SettingError(
            f"alipay-public-key: {path} is the app's own public key; "
            "Alipay shows its own after that one was uploaded"
        )
    return key


def _from_certificates(
    files: AlipayFiles, key: RSAPrivateKey, now: float
) -> tuple[Mapping[str, str], Mapping[str, RSAPublicKey]]:
    if not (files.app_certificate and files.certificate and files.root_certificate):
        raise SettingError("alipay-app-certificate: is needed with the other certificates")
    app = read_certificate("alipay-app-certificate", files.app_certificate, now)
    if not belong_together(key, rsa_key(app)):
        raise SettingError(
            f"alipay-private-key: {files.private_key} does not belong to the certificate "
            f"{files.app_certificate} (alipay-app-certificate)"
        )
    roots = read_certificates("alipay-root-certificate", files.root_certificate)
    first = read_certificate("alipay-certificate", files.certificate, now)
    chain = read_certificates("alipay-certificate", files.certificate)
    if not is_vouched_for(first, [*chain[1:], *roots], roots):
        raise SettingError(
            f"alipay-certificate: {files.certificate} is not issued by the root "
            f"{files.root_certificate} (alipay-root-certificate)"
        )
    numbers = {"app_cert_sn": certificate_number(app), "alipay_root_cert_sn": root_number(roots)}
    return numbers, _signing_keys(chain)


def is_vouched_for(
    certificate: Certificate, issuers: Sequence[Certificate], roots: Sequence[Certificate]
) -> bool:
    """Whether a chain of signatures leads from the certificate through `issuers` to a root."""
    current = certificate
    for _ in range(len(issuers) + 1):
        if current in roots:
            return True
        above = next((each for each in issuers if _issued(current, each)), None)
        if above is None or above == current:
            return False
        current = above
    return False


def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):  # another name, or another kind of key
        return False
    return True


def _signing_keys(chain: Sequence[Certificate]) -> dict[str, RSAPublicKey]:
    """The keys that sign messages, not certificates; during a change the file may have two."""
    leaves = [each for each in chain if not any(_issued(other, each) for other in chain)]
    keys = {certificate_number(each): rsa_key(each) for each in leaves}
    return {number: key for number, key in keys.items() if key is not None}
