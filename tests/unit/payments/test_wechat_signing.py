"""WeChat Pay's signatures and seals, against crypto that is not the server's."""

from __future__ import annotations

import base64
import os
import re

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, strategies as st

from tests.gateways import keys
from vision.payments.errors import NotificationRefused
from vision.payments.wechat_signing import (
    Merchant,
    authorization,
    check_seal,
    normal_serial,
    read_seal,
    unseal,
)

NOW = 1_700_000_000
KEY = bytes(range(32))


@given(st.binary(max_size=200), st.sampled_from(["GET", "POST"]))
def test_a_request_is_signed_over_every_byte_that_is_sent(wechat_keys, body, method):
    key = keys.read_private(wechat_keys, "merchant")
    merchant = Merchant("1900", "ABC", key)

    header = authorization(merchant, method, "/v3/x?a=b", body, timestamp=NOW, nonce="n0")

    scheme, _, rest = header.partition(" ")
    found = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    signed = f"{method}\n/v3/x?a=b\n{NOW}\nn0\n".encode() + body + b"\n"
    signature = base64.b64decode(found.pop("signature"))
    key.public_key().verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    assert scheme == "WECHATPAY2-SHA256-RSA2048"
    expected = {"mchid": "1900", "nonce_str": "n0", "timestamp": str(NOW), "serial_no": "ABC"}
    assert found == expected


def headers_of(key, body, stamp=NOW, serial="0ab"):
    signed = f"{stamp}\nabc\n".encode() + body + b"\n"
    signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return {
        "WECHATPAY-TIMESTAMP": str(stamp),
        "wechatpay-nonce": "abc",
        "Wechatpay-Serial": serial,
        "Wechatpay-Signature": base64.b64encode(signature).decode(),
    }


@given(st.binary(max_size=200), st.integers(-300, 300))
def test_a_genuine_message_passes_within_five_minutes(wechat_keys, body, off):
    key = keys.read_private(wechat_keys, "public")

    seal = read_seal(headers_of(key, body, NOW + off), NOW)

    check_seal(seal, body, key.public_key())
    assert seal.serial == "AB"


@pytest.mark.parametrize("off", [-301, 301, -10_000_000_000_000])
def test_a_message_of_another_time_is_refused(wechat_keys, off):
    key = keys.read_private(wechat_keys, "public")

    with pytest.raises(NotificationRefused):
        read_seal(headers_of(key, b"", NOW + off), NOW)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_changed_byte_passes(wechat_keys, body, data):
    key = keys.read_private(wechat_keys, "public")
    seal = read_seal(headers_of(key, body), NOW)
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]

    with pytest.raises(NotificationRefused, match="false"):
        check_seal(seal, changed, key.public_key())


@pytest.mark.parametrize(
    "name", ["WECHATPAY-TIMESTAMP", "wechatpay-nonce", "Wechatpay-Serial", "Wechatpay-Signature"]
)
def test_a_message_without_one_of_the_headers_is_refused(wechat_keys, name):
    headers = headers_of(keys.read_private(wechat_keys, "public"), b"")
    del headers[name]

    with pytest.raises(NotificationRefused, match="missing"):
        read_seal(headers, NOW)


@pytest.mark.parametrize(
    "signature", ["WECHATPAY/SIGNTEST/" + "A" * 325, "", "=", "一", "A" * 100_000]
)
def test_probes_and_nonsense_fail_like_any_false_signature(wechat_keys, signature):
    key = keys.read_private(wechat_keys, "public")
    headers = headers_of(key, b"{}") | {"Wechatpay-Signature": signature}

    with pytest.raises(NotificationRefused):
        check_seal(read_seal(headers, NOW), b"{}", key.public_key())


@given(st.text())
def test_a_serial_has_one_spelling(text):
    normal = normal_serial(text)

    assert normal_serial(normal) == normal
    assert normal_serial("00aB") == normal_serial("Ab") == "AB"
    assert normal_serial("PUB_KEY_ID_0x") == "PUB_KEY_ID_0x"


@given(st.binary(max_size=99), st.text(max_size=9))
def test_a_resource_opens_whole(plain, associated):
    nonce = os.urandom(6).hex()
    sealed = AESGCM(KEY).encrypt(nonce.encode(), plain, associated.encode())

    opened = unseal(
        KEY,
        algorithm="AEAD_AES_256_GCM",
        nonce=nonce,
        associated_data=associated,
        ciphertext=base64.b64encode(sealed).decode(),
    )

    assert opened == plain


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "AEAD_SM4_GCM"},
        {"nonce": ""},
        {"nonce": "123456789013"},
        {"associated_data": "other"},
        {"ciphertext": "AAAA"},
        {"ciphertext": "not base64"},
        {"ciphertext": ""},
    ],
)
def test_a_resource_that_was_changed_does_not_open(changes):
    sealed = base64.b64encode(AESGCM(KEY).encrypt(b"123456789012", b"{}", b"a")).decode()
    right = {
        "algorithm": "AEAD_AES_256_GCM",
        "nonce": "123456789012",
        "associated_data": "a",
        "ciphertext": sealed,
    }

    with pytest.raises(NotificationRefused):
        unseal(KEY, **(right | changes))
