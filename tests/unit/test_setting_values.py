"""A reader gives the value of a text, or says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from vision import setting_values as read

VISIBLE = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1
)


@given(number=st.integers(min_value=0, max_value=65535))
def test_every_port_can_be_named(number):
    assert read.port(str(number)) == number


@pytest.mark.parametrize("text", ["", "-1", "65536", "1_0", " 1", "1.0", "٣", "²"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(ValueError, match=r"^is not a "):
        read.port(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("512K", 1 << 19),
        ("8MB", 8 << 20),
        ("8 MiB", 8 << 20),
        ("8mib", 8 << 20),
        ("1G", 1 << 30),
        ("7B", 7),
    ],
)
def test_sizes_are_read_with_their_unit(text, value):
    assert read.size(text) == value


@pytest.mark.parametrize("text", ["", "0", "0M", "-1", "1.5M", "8 M B", "8T", "M", "1iB2"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"^is not a size above 0"):
        read.size(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e999", "soon"])
def test_what_is_no_time_span_is_refused(text):
    with pytest.raises(ValueError, match=r"^is not a number of seconds"):
        read.seconds(text)


@given(keys=st.lists(VISIBLE, min_size=1))
def test_keys_of_visible_ascii_are_read_back(keys):
    assert read.keys(",".join(keys)) == tuple(keys)


@pytest.mark.parametrize("text", ["", ",", "a,", "a b", "a\tb", "a\nb", "é", "a,\x7f"])
def test_keys_that_cannot_stand_in_a_header_are_refused(text):
    with pytest.raises(ValueError, match=r"^key \d is not usable"):
        read.keys(text)


@pytest.mark.parametrize(
    "text", ["", "redis://host", "rediss://host:1/2", "unix:///run/redis.sock", "redis://[::1]:1"]
)
def test_urls_that_the_client_understands_are_taken(text):
    assert read.redis_url(text) == text


@pytest.mark.parametrize(
    "text",
    ["host:6379", "http://host", "redis://", "unix://", "redis://[::1", "unix:a", "redis://host:x"],
)
def test_other_urls_are_refused(text):
    with pytest.raises(ValueError, match="is not a redis"):
        read.redis_url(text)


def test_home_is_expanded_and_empty_is_no_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert read.path("~/data") == Path("/home/somebody/data")
    assert read.optional_path("") is None
    with pytest.raises(ValueError, match=r"^is not a path$"):
        read.path("")


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [("::ffff:127.0.0.1", True), ("2130706433", True), ("0", False), ("8.8.8.8", False)],
)
def test_loopback_is_told_from_every_spelling_of_an_address(address, is_loopback):
    assert read.is_loopback(address) is is_loopback
