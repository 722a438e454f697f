"""Which keys WeChat Pay signs with now, through every change of them.

The law: a key is trusted because its id is configured, or because a certificate with that serial
came sealed under our API v3 key and is valid now. Certificates are added and expire; a failed
download takes none away, so the night in which WeChat Pay rotates them, or is out of reach, costs
no notification. An unknown serial makes one download, and no more than one in `Pace.refresh`:
strangers can send serials as they like.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509 import Certificate, load_pem_x509_certificate

from vision.payments.errors import GatewayUnavailable, NotificationRefused
from vision.payments.keys import rsa_key
from vision.payments.wechat_signing import PUBLIC_KEY_PREFIX, Seal, check_seal, normal_serial

Fetch = Callable[[], Awaitable[Sequence[Certificate]]]


class Trust:
    """The keys of one process. `fetch` downloads the certificates and unseals them; it raises
    GatewayUnavailable or GatewayRefused. `pause` is in seconds, see `Pace.refresh`."""

    def __init__(self, public_keys: Mapping[str, RSAPublicKey], fetch: Fetch, pause: float) -> None:
        self._public_keys = public_keys
        self._fetch = fetch
        self._certificates: dict[str, Certificate] = {}
        self._lock = asyncio.Lock()
        self._pause = pause
        self._next_fetch = float("-inf")
        self._failed = False

    async def check(self, seal: Seal, body: bytes, now: float) -> None:
        """Pass when the body is genuine; `now` is in seconds since the epoch.

        Raises NotificationRefused, and GatewayUnavailable when the certificate is not known and
        cannot be fetched now.
        """
        check_seal(seal, body, await self._key(seal.serial, now))

    def add(self, certificates: Sequence[Certificate]) -> None:
        """Trust these, which were sealed under our API v3 key, beside those before."""
        for certificate in certificates:
            serial = normal_serial(f"{certificate.serial_number:X}")
            self._certificates[serial] = certificate

    def known(self, serial: str, now: float) -> RSAPublicKey | None:
        """The key of this id or serial, if it is trusted at this moment."""
        if serial in self._public_keys:
            return self._public_keys[serial]
        certificate = self._certificates.get(serial)
        if certificate is None or not _is_valid(certificate, now):
            return None
        return rsa_key(certificate)

    async def _key(self, serial: str, now: float) -> RSAPublicKey:
        key = self.known(serial, now)
        if key is None and not serial.startswith(PUBLIC_KEY_PREFIX):
            async with self._lock:
                key = self.known(serial, now)  # another may have fetched it meanwhile
                if key is None:
                    await self._refresh()
                    key = self.known(serial, now)
        if key is None:
            raise NotificationRefused(f"Wechatpay-Serial {serial} is none that WeChat Pay has now")
        return key

    async def _refresh(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next_fetch:
            if self._failed:
                raise GatewayUnavailable("wechat's certificates could not be fetched just now")
            return
        self._next_fetch = now + self._pause
        self._failed = True
        self.add(await self._fetch())
        self._failed = False


def read_certificate_pem(plain: bytes) -> Certificate:
    """A certificate as it was unsealed. Raises GatewayUnavailable."""
    try:
        return load_pem_x509_certificate(plain)
    except ValueError as error:
        raise GatewayUnavailable("wechat sent a certificate that cannot be read") from error


def _is_valid(certificate: Certificate, now: float) -> bool:
    moment = datetime.fromtimestamp(now, UTC)
    return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc
