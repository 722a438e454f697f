"""What stands between us and an upstream: proxies of the environment, and never for ourselves."""

from __future__ import annotations

import pytest
from asking import scene_at
from yarl import URL

from vision.models.catalog import Endpoint
from vision.models.clients import _proxy_for
from vision.models.composing import compose

PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://api.example/v1", PROXY),
        ("http://api.example/v1", None),
        ("https://inside.example/v1", None),
        ("https://localhost/v1", None),
        ("https://127.0.0.1/v1", None),
        ("https://[::1]/v1", None),
    ],
)
def test_proxy_of_the_environment_serves_its_scheme_and_no_loopback_address(
    monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "inside.example")
    assert _proxy_for(URL(url)) == (proxy and URL(proxy))


@pytest.mark.gen_test
async def test_a_proxy_that_cannot_be_used_is_said_and_not_gone_around(io_loop, monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5://user:secret@proxy.example:1080")
    monkeypatch.delenv("no_proxy", raising=False)
    scene = scene_at("http://api.invalid/v1")
    error = await scene.failure_of(scene.call("hi"))
    await scene.models.close()
    assert error.code == "upstream_unreachable"
    assert "a socks5 proxy is not supported" in error.message
    assert "secret" not in error.message


@pytest.mark.gen_test
async def test_openai_composes_address_and_headers_without_a_word_to_anyone(io_loop):
    composed = await compose(Endpoint("http://nobody.invalid/v1", "sk-1"), "/chat/completions")
    assert str(composed.url) == "http://nobody.invalid/v1/chat/completions"
    assert composed.headers["authorization"] == "Bearer sk-1"
    assert composed.headers["content-type"] == "application/json"
    assert composed.headers["accept-encoding"] == "identity"
    assert "content-length" not in composed.headers
