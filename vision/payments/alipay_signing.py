"""How Alipay signs requests, answers and notifications (RSA2), and how it names certificates.

The law: the algorithm is RSA2 whatever a message says. A request's signature is over its sorted,
unencoded parameters; an answer's is over the bytes of its response node exactly as sent, so the
node is cut out of the text, not parsed and written again; a notification's is over its sorted,
decoded parameters without `sign` and `sign_type`. Nothing is read further before it is verified.

Pure. Source: payment-protocols, "Alipay, face to face".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509 import Certificate

from vision.payments.errors import NotificationRefused
from vision.payments.signatures import is_signed, sign

# Its notifications have some forty parameters.
MOST_PARAMETERS: Final = 200
# PKCS #1: the RSA signature algorithms. The root file has certificates of other kinds too.
_RSA_OIDS: Final = "1.2.840.113549.1.1."

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[^,\]}\s]+")
_NESTING: Final = re.compile(rb'[{}\[\]]|"(?:[^"\\]|\\.)*"', re.DOTALL)


def signed_parameters(parameters: Mapping[str, str], key: RSAPrivateKey) -> dict[str, str]:
    """The non-empty parameters with their `sign`."""
    given = {name: value for name, value in parameters.items() if value and name != "sign"}
    return {**given, "sign": sign(key, canonical(given))}


def canonical(parameters: Mapping[str, str]) -> bytes:
    """Sorted by name, joined as `k=v&k=v`, not encoded."""
    return "&".join(f"{name}={parameters[name]}" for name in sorted(parameters)).encode()


def answer_parts(body: bytes) -> dict[str, bytes]:
    """An answer's top-level members, each value as the bytes that were sent.

    Raises ValueError for what is not one JSON object with different names.
    """
    at = _expect(body, 0, b"{")
    parts: dict[str, bytes] = {}
    while True:
        name, at = _string(body, at)
        at = _expect(body, at, b":")
        end = _end_of_value(body, at)
        if name in parts:
            raise ValueError("a name occurs twice")
        parts[name] = body[at:end]
        at = _skip(body, end)
        if body[at : at + 1] == b"}":
            break
        at = _expect(body, at, b",")
    if _skip(body, at + 1) != len(body):
        raise ValueError("something stands behind the object")
    return parts


def notified_parameters(body: bytes, keys: Sequence[RSAPublicKey]) -> dict[str, str]:
    """The parameters of a form-encoded notification that one of `keys` has signed.

    Raises NotificationRefused.
    """
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MOST_PARAMETERS,
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise NotificationRefused("the body is not a form in UTF-8") from error
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise NotificationRefused("a parameter occurs twice")
    signature = parameters.pop("sign", "")
    if parameters.pop("sign_type", "RSA2") != "RSA2":
        raise NotificationRefused("sign_type is not RSA2")
    text = canonical(parameters)
    if not any(is_signed(key, text, signature) for key in keys):
        raise NotificationRefused("sign is false")
    return parameters


def certificate_number(certificate: Certificate) -> str:
    """What Alipay calls a certificate: MD5 of its issuer's name and its serial number."""
    text = certificate.issuer.rfc4514_string() + str(certificate.serial_number)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def root_number(certificates: Sequence[Certificate]) -> str:
    """What Alipay calls a root file: the numbers of its RSA certificates, joined by `_`."""
    return "_".join(
        certificate_number(each)
        for each in certificates
        if each.signature_algorithm_oid.dotted_string.startswith(_RSA_OIDS)
    )


def _skip(body: bytes, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _expect(body: bytes, at: int, sign_: bytes) -> int:
    at = _skip(body, at)
    if body[at : at + 1] != sign_:
        raise ValueError(f"no {sign_.decode()} at byte {at}")
    return _skip(body, at + 1)


def _string(body: bytes, at: int) -> tuple[str, int]:
    match = _STRING.match(body, at)
    if match is None:
        raise ValueError(f"no name at byte {at}")
    return match.group(1).decode(), match.end()


def _end_of_value(body: bytes, at: int) -> int:
    first = body[at : at + 1]
    if first not in {b"{", b"["}:
        match = _STRING.match(body, at) if first == b'"' else _SCALAR.match(body, at)
        if match is None:
            raise ValueError(f"no value at byte {at}")
        return match.end()
    depth = 0
    for mark in _NESTING.finditer(body, at):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(mark.group(), 0)
        if depth == 0:
            return mark.end()
    raise ValueError("the object does not end")
