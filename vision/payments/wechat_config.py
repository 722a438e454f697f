"""What a WeChat Pay merchant is configured with, checked as a whole before the server starts.

The law: none of the `wechat-*` settings means no WeChat Pay; some of them without the rest, a key
that does not belong to its certificate, an expired certificate or a notify URL that WeChat Pay
would not call is a SettingError that names the setting. No secret is ever in a message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from vision.errors import SettingError
from vision.payments.exchange import Pace
from vision.payments.keys import (
    belong_together,
    read_certificate,
    read_private_key,
    read_public_key,
    rsa_key,
)
from vision.payments.wechat_signing import PUBLIC_KEY_PREFIX, Merchant, normal_serial
from vision.settings import Settings

GATEWAY_URL: Final = "https://api.mch.weixin.qq.com"
# AES-256.
_KEY_BYTES: Final = 32
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class WechatFiles:
    """The `wechat-*` settings as they were written; empty or None means not given."""

    merchant_id: str = ""
    app_id: str = ""
    private_key: Path | None = None
    certificate: Path | None = None
    api_v3_key: str = field(default="", repr=False)
    public_key: Path | None = None
    public_key_id: str = ""
    notify_url: str = ""
    gateway_url: str = GATEWAY_URL

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The settings of this gateway."""
        return cls(
            merchant_id=settings.wechat_merchant_id,
            app_id=settings.wechat_app_id,
            private_key=settings.wechat_private_key,
            certificate=settings.wechat_certificate,
            api_v3_key=settings.wechat_api_v3_key,
            public_key=settings.wechat_public_key,
            public_key_id=settings.wechat_public_key_id,
            notify_url=settings.wechat_notify_url,
            gateway_url=settings.wechat_gateway_url,
        )


@dataclass(frozen=True, slots=True)
class WechatConfig:
    """A merchant, ready to use. `public_keys` are WeChat Pay's own, by their ids; with none of
    them its certificates are fetched when they are needed."""

    merchant: Merchant = field(repr=False)
    app: str
    api_v3_key: bytes = field(repr=False)
    notify_url: str
    gateway_url: str = GATEWAY_URL
    public_keys: dict[str, RSAPublicKey] = field(default_factory=dict, repr=False)
    pace: Pace = field(default_factory=Pace)


def load_wechat(files: WechatFiles, now: float) -> WechatConfig | None:
    """The merchant of these settings; None when none of them is given.

    `now` is in seconds since the epoch. Raises SettingError.
    """
    if not _given(files):
        return None
    if files.private_key is None or files.certificate is None:
        raise SettingError("wechat-private-key and wechat-certificate belong together")
    certificate = read_certificate("wechat-certificate", files.certificate, now)
    key = read_private_key("wechat-private-key", files.private_key)
    if not belong_together(key, rsa_key(certificate)):
        raise SettingError(
            f"wechat-private-key: {files.private_key} does not belong to the certificate "
            f"{files.certificate} (wechat-certificate)"
        )
    serial = normal_serial(f"{certificate.serial_number:X}")
    return WechatConfig(
        merchant=Merchant(files.merchant_id, serial, key),
        app=files.app_id,
        api_v3_key=_api_v3_key(files.api_v3_key),
        notify_url=checked_notify_url("wechat-notify-url", files.notify_url),
        gateway_url=files.gateway_url.rstrip("/"),
        public_keys=_public_keys(files),
    )


def checked_notify_url(setting: str, url: str) -> str:
    """A URL that a gateway calls: https (http only on loopback, for trying out), without a query.

    Raises SettingError.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise SettingError(f'{setting}: "{url}" is not a URL: {error}') from error
    if not host or parts.scheme not in {"http", "https"}:
        raise SettingError(f'{setting}: "{url}" is not an https:// URL')
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise SettingError(f'{setting}: "{url}" is not https, so the gateway will not call it')
    if "?" in url or "#" in url:
        raise SettingError(f'{setting}: "{url}" has a query, so the gateway will not call it')
    return url


def _given(files: WechatFiles) -> bool:
    """Whether the merchant is configured. Raises SettingError when it is only in part."""
    needed = {
        "wechat-merchant-id": files.merchant_id,
        "wechat-app-id": files.app_id,
        "wechat-private-key": files.private_key,
        "wechat-certificate": files.certificate,
        "wechat-api-v3-key": files.api_v3_key,
        "wechat-notify-url": files.notify_url,
    }
    optional = (files.public_key, files.public_key_id)
    if not any(needed.values()) and not any(optional):
        return False
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise SettingError(f"{missing[0]}: is needed with the other wechat-* settings")
    return True


def _api_v3_key(text: str) -> bytes:
    key = text.encode()
    if len(key) != _KEY_BYTES:
        raise SettingError(f"wechat-api-v3-key: must have {_KEY_BYTES} bytes, not {len(key)}")
    return key


def _public_keys(files: WechatFiles) -> dict[str, RSAPublicKey]:
    if files.public_key is None and not files.public_key_id:
        return {}
    if files.public_key is None or not files.public_key_id:
        raise SettingError("wechat-public-key and wechat-public-key-id belong together")
    if not files.public_key_id.startswith(PUBLIC_KEY_PREFIX):
        raise SettingError(f"wechat-public-key-id: must begin with {PUBLIC_KEY_PREFIX}")
    return {files.public_key_id: read_public_key("wechat-public-key", files.public_key)}
