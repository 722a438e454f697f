"""Moments on the gateways' wires."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, strategies as st

from vision.payments.moments import beijing_day, beijing_ms, beijing_text, rfc3339_ms, rfc3339_text

SECONDS = st.integers(0, 4_000_000_000)


@given(SECONDS)
def test_what_is_written_is_read_back(seconds):
    ms = seconds * 1000 + 999

    assert beijing_ms(beijing_text(ms)) == rfc3339_ms(rfc3339_text(ms)) == seconds * 1000


def test_the_clock_is_that_of_china():
    assert beijing_text(0) == "1970-01-01 08:00:00"
    assert rfc3339_text(0) == "1970-01-01T08:00:00+08:00"
    assert beijing_ms("1970-01-01 08:00:00.5") == 500
    assert rfc3339_ms("1970-01-01T00:00:01Z") == 1000
    assert beijing_day(16 * 3600 * 1000) == date(1970, 1, 2)


@pytest.mark.parametrize("text", ["", "2026-01-01", "2026-13-01 00:00:00", "2026-01-01 00:00:00.x"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 -- the message is Python's
        beijing_ms(text)


def test_a_moment_without_an_offset_is_refused():
    with pytest.raises(ValueError, match="which clock"):
        rfc3339_ms("2026-01-01T00:00:00")
