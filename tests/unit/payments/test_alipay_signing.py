"""What of Alipay's messages is signed, to the byte."""

from __future__ import annotations

import base64
import json
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given, strategies as st

from tests.gateways import keys
from tests.gateways.alipay_messages import certificate_sn
from vision.payments.alipay_signing import (
    answer_parts,
    canonical,
    certificate_number,
    notified_parameters,
    root_number,
    signed_parameters,
)
from vision.payments.errors import NotificationRefused

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,9}", fullmatch=True), VALUES, min_size=1),
    st.sampled_from([(",", ":"), (" ,\n ", " : ")]),
    st.booleans(),
)
def test_the_parts_of_an_answer_are_the_bytes_that_were_sent(members, separators, ascii_only):
    written = {
        name: json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode()
        for name, value in members.items()
    }
    comma, colon = (each.encode() for each in separators)
    body = b"{" + comma.join(b'"%s"' % n.encode() + colon + v for n, v in written.items()) + b"}"

    assert answer_parts(body) == written


@given(st.binary(max_size=60))
def test_no_bytes_make_it_fail_otherwise_than_by_refusing(body):
    try:
        answer_parts(body)
    except ValueError:
        return
    assert body.strip()[:1] == b"{"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"a":1',
        b'{"a":{"b":1}',
        b'{"a":1}{"a":2}',
        b'{"a":1,"a":2}',
        b'{"a":}',
        b'{"a" 1}',
        b'<html>{"a":1}</html>',
        b'{"a":"' + b"\\" * 99,
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_what_is_not_one_object_with_different_names_is_refused(body):
    with pytest.raises(ValueError):  # noqa: PT011 -- which place is wrong is not the point
        answer_parts(body)


def test_a_request_is_signed_over_its_sorted_non_empty_unencoded_parameters(alipay_keys):
    key = keys.read_private(alipay_keys, "app")
    given_ = {"method": "m", "app_id": "1", "notify_url": "", "biz_content": '{"a":"一 &="}'}

    signed = signed_parameters(given_, key)

    text = 'app_id=1&biz_content={"a":"一 &="}&method=m'.encode()
    key.public_key().verify(
        base64.b64decode(signed.pop("sign")), text, padding.PKCS1v15(), hashes.SHA256()
    )
    assert signed == {"method": "m", "app_id": "1", "biz_content": '{"a":"一 &="}'}


def notified(key, parameters, **extra):
    signature = key.sign(canonical(parameters), padding.PKCS1v15(), hashes.SHA256())
    return urlencode({**parameters, "sign": base64.b64encode(signature), **extra}).encode()


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name not in {"sign", "sign_type"}),
        st.text(max_size=9),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_alipay_signs_is_read(alipay_keys, parameters):
    key = keys.read_private(alipay_keys, "alipay")

    read = notified_parameters(notified(key, parameters, sign_type="RSA2"), [key.public_key()])

    assert read == parameters


@pytest.mark.parametrize("sign_type", ["RSA", "MD5", "none", ""])
def test_the_algorithm_is_never_taken_from_the_message(alipay_keys, sign_type):
    key = keys.read_private(alipay_keys, "alipay")

    with pytest.raises(NotificationRefused, match="sign_type is not RSA2"):
        notified_parameters(notified(key, {"a": "1"}, sign_type=sign_type), [key.public_key()])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"a",
        b"\xff=1",
        b"a=%ff",
        b"a=1&a=2&sign=x",
        b"a=1&sign=",
        b"a=1&sign=%E4%B8%80",
        b"a=1",
    ],
)
def test_what_is_no_signed_form_is_refused(alipay_keys, body):
    key = keys.read_private(alipay_keys, "alipay").public_key()

    with pytest.raises(NotificationRefused):
        notified_parameters(body, [key])


def test_a_parameter_that_was_added_twice_is_refused_although_one_is_signed(alipay_keys):
    key = keys.read_private(alipay_keys, "alipay")
    body = notified(key, {"total_amount": "9.90"}) + b"&total_amount=0.01"

    with pytest.raises(NotificationRefused, match="occurs twice"):
        notified_parameters(body, [key.public_key()])


def test_a_certificate_has_the_number_that_alipay_computes(alipay_keys):
    app, root = keys.read_cert(alipay_keys, "app"), keys.read_cert(alipay_keys, "root")

    assert certificate_number(app) == certificate_sn(app)
    assert root_number([root, app]) == f"{certificate_sn(root)}_{certificate_sn(app)}"
