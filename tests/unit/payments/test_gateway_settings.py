"""What is wrong with a merchant's settings is said before the start, by the setting's name."""

from __future__ import annotations

import dataclasses
import datetime
import time

import pytest

from tests.gateways import keys
from vision.errors import SettingError
from vision.payments.alipay_config import NO_NUMBER, AlipayFiles, load_alipay
from vision.payments.wechat_config import WechatFiles, load_wechat
from vision.settings import Settings

DAY = datetime.timedelta(days=1)


@pytest.fixture
def wechat(wechat_keys):
    return WechatFiles(
        merchant_id="1",
        app_id="wx1",
        private_key=wechat_keys / "merchant.key",
        certificate=wechat_keys / "merchant.crt",
        api_v3_key="k" * 32,
        notify_url="https://example.com/notify",
    )


@pytest.fixture
def alipay(alipay_keys):
    return AlipayFiles(
        app_id="2021",
        seller_id="2088",
        private_key=alipay_keys / "app.key",
        public_key=alipay_keys / "alipay.pub",
        notify_url="https://example.com/notify",
    )


@pytest.fixture
def certified(alipay, alipay_keys):
    return dataclasses.replace(
        alipay,
        public_key=None,
        app_certificate=alipay_keys / "app.crt",
        certificate=alipay_keys / "alipay.crt",
        root_certificate=alipay_keys / "root.crt",
    )


def refusal(load, files, **changes):
    with pytest.raises(SettingError) as refused:
        load(dataclasses.replace(files, **changes), time.time())
    return refused.value.message


def test_without_any_setting_there_is_no_gateway():
    assert load_wechat(WechatFiles.of(Settings()), time.time()) is None
    assert load_alipay(AlipayFiles.of(Settings()), time.time()) is None


def test_a_complete_merchant_is_loaded(wechat, alipay, certified, wechat_keys):
    public = {"public_key": wechat_keys / "public.pub", "public_key_id": "PUB_KEY_ID_1"}

    assert load_wechat(wechat, time.time()).public_keys == {}
    both = load_wechat(dataclasses.replace(wechat, **public), time.time())
    assert list(both.public_keys) == ["PUB_KEY_ID_1"]
    assert list(load_alipay(alipay, time.time()).alipay_keys) == [NO_NUMBER]
    assert set(load_alipay(certified, time.time()).numbers) == {
        "app_cert_sn",
        "alipay_root_cert_sn",
    }


def test_no_secret_is_shown(wechat, alipay):
    loaded = load_wechat(wechat, time.time())

    assert "kkkk" not in repr(wechat) + repr(loaded)
    assert "RSAPrivateKey" not in repr(loaded) + repr(load_alipay(alipay, time.time()))


@pytest.mark.parametrize(
    "name",
    ["merchant_id", "app_id", "private_key", "certificate", "api_v3_key", "notify_url"],
)
def test_half_a_merchant_of_wechat_is_refused(wechat, name):
    assert refusal(load_wechat, wechat, **{name: ""}).startswith(f"wechat-{name.replace('_', '-')}")


@pytest.mark.parametrize("name", ["app_id", "seller_id", "private_key", "public_key", "notify_url"])
def test_half_a_merchant_of_alipay_is_refused(alipay, name):
    assert refusal(load_alipay, alipay, **{name: None}).startswith(
        f"alipay-{name.replace('_', '-')}"
    )


@pytest.mark.parametrize("name", ["app_certificate", "certificate", "root_certificate"])
def test_half_of_the_certificates_is_refused(certified, name):
    assert refusal(load_alipay, certified, **{name: None}).startswith(
        f"alipay-{name.replace('_', '-')}"
    )


def test_both_modes_of_alipay_at_once_are_refused(certified, alipay_keys):
    message = refusal(load_alipay, certified, public_key=alipay_keys / "alipay.pub")

    assert message.startswith("alipay-public-key: not together with certificates")


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read"), (b"", "not a private key"), (b"-----BEGIN X-----", "not a private")],
)
def test_a_key_file_that_is_none_is_refused(wechat, alipay, tmp_path, content, why):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)

    for load, files, name in ((load_wechat, wechat, "wechat"), (load_alipay, alipay, "alipay")):
        message = refusal(load, files, private_key=path)
        assert message.startswith(f"{name}-private-key: ")
        assert why in message


def test_a_key_of_another_certificate_is_refused(wechat, certified, wechat_keys, alipay_keys):
    stranger = refusal(load_wechat, wechat, private_key=wechat_keys / "stranger.key")
    other = refusal(load_alipay, certified, private_key=alipay_keys / "stranger.key")

    assert stranger.startswith("wechat-private-key: ")
    assert "does not belong to the certificate" in stranger
    assert other.startswith("alipay-private-key: ")


def test_an_expired_certificate_is_refused(wechat, certified, tmp_path):
    keys.write_pair(tmp_path, "expired", begin=-DAY * 9, end=-DAY)
    keys.write_pair(tmp_path, "early", begin=DAY, end=DAY * 9)

    expired = refusal(load_wechat, wechat, certificate=tmp_path / "expired.crt")
    early = refusal(load_wechat, wechat, certificate=tmp_path / "early.crt")
    alipay = refusal(load_alipay, certified, certificate=tmp_path / "expired.crt")

    assert expired.startswith("wechat-certificate: ")
    assert "expired on" in expired
    assert "valid only from" in early
    assert alipay.startswith("alipay-certificate: ")


def test_a_certificate_that_the_root_does_not_vouch_for_is_refused(certified, tmp_path):
    keys.write_pair(tmp_path, "self")

    message = refusal(load_alipay, certified, certificate=tmp_path / "self.crt")

    assert message.startswith("alipay-certificate: ")
    assert "not issued by the root" in message


def test_our_own_public_key_in_place_of_alipays_is_refused(alipay, alipay_keys):
    message = refusal(load_alipay, alipay, public_key=alipay_keys / "app.pub")

    assert "is the app's own public key" in message


def test_a_key_as_alipays_tool_writes_it_is_read(alipay, alipay_keys, tmp_path):
    for name in ("app.key", "alipay.pub"):
        lines = (alipay_keys / name).read_text().splitlines()
        (tmp_path / name).write_text("".join(lines[1:-1]))

    bare = dataclasses.replace(
        alipay, private_key=tmp_path / "app.key", public_key=tmp_path / "alipay.pub"
    )

    numbers = load_alipay(bare, time.time()).key.private_numbers()
    assert numbers == load_alipay(alipay, time.time()).key.private_numbers()


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"api_v3_key": "short"}, "wechat-api-v3-key: must have 32 bytes, not 5"),
        ({"notify_url": "http://example.com/n"}, "wechat-notify-url: "),
        ({"notify_url": "https://example.com/n?a=1"}, "wechat-notify-url: "),
        ({"notify_url": "ftp://example.com/n"}, "wechat-notify-url: "),
        ({"notify_url": "https://[::1"}, "wechat-notify-url: "),
        ({"public_key_id": "PUB_KEY_ID_1"}, "wechat-public-key and wechat-public-key-id belong"),
    ],
)
def test_other_slips_are_named(wechat, changes, start):
    assert refusal(load_wechat, wechat, **changes).startswith(start)
