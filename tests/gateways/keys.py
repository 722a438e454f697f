"""Keys and certificates for the simulators and for the servers that are tested against them.

The law: every key is made here and is nobody's; one folder has what one merchant and one gateway
have between them, each half in a file of its own, as the real ones are handed over. Made with
`cryptography` directly, not with the server's code.
"""

from __future__ import annotations

import datetime
import functools
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

API_V3_KEY = "0123456789abcdef0123456789ABCDEF"
PUBLIC_KEY_ID = "PUB_KEY_ID_0114232134912410000000000000"
WECHAT_MERCHANT = "1900000109"
WECHAT_APP = "wxd678efh567hg6787"
ALIPAY_APP = "2021000000000001"
ALIPAY_SELLER = "2088102146225135"

YEAR = datetime.timedelta(days=365)


def make_wechat(folder: Path) -> Path:
    """`merchant`, `public` (WeChat Pay's public key), `platform1` and `platform2` (its certificates
    before and after a rotation), `stranger`: each NAME.key, NAME.pub and NAME.crt."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("merchant", "public", "platform1", "platform2", "stranger"):
        write_pair(folder, name)
    return folder


def make_alipay(folder: Path) -> Path:
    """`app`, `alipay`, `stranger` as above; `root.crt` issued `alipay.crt`; `newer` follows it."""
    folder.mkdir(parents=True, exist_ok=True)
    root = write_pair(folder, "root", authority=True)
    for name in ("app", "alipay", "newer", "stranger"):
        write_pair(folder, name, issuer=root)
    return folder


def write_pair(
    folder: Path,
    name: str,
    *,
    issuer: tuple[rsa.RSAPrivateKey, x509.Certificate] | None = None,
    authority: bool = False,
    begin: datetime.timedelta = -YEAR,
    end: datetime.timedelta = YEAR,
) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """A key and its certificate, self-signed unless there is an issuer; valid around now."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Simulated"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    signing_key, issuer_name = (issuer[0], issuer[1].subject) if issuer else (key, subject)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begin)
        .not_valid_after(now + end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(signing_key, hashes.SHA256())
    )
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / f"{name}.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key, certificate


@functools.cache  # reading checks the key, which takes 20 ms
def read_private(folder: Path, name: str) -> rsa.RSAPrivateKey:
    """The private key that was written under this name."""
    key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def read_cert(folder: Path, name: str) -> x509.Certificate:
    """The certificate that was written under this name."""
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
