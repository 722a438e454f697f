"""Keys for the unit tests of gateways, made once."""

from __future__ import annotations

import pytest

from tests.gateways import keys


@pytest.fixture(scope="session")
def wechat_keys(tmp_path_factory):
    return keys.make_wechat(tmp_path_factory.mktemp("wechat"))


@pytest.fixture(scope="session")
def alipay_keys(tmp_path_factory):
    return keys.make_alipay(tmp_path_factory.mktemp("alipay"))
