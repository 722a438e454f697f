"""Waits grow, are spread, are bounded, and respect the upstream's wish."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given, strategies as st

from vision.models.backoff import (
    FIRST_DELAY,
    MAX_DELAY,
    MAX_RETRY_AFTER,
    parse_retry_after,
    retry_delay,
)

jitters = st.floats(0, 1, exclude_max=True)
attempts = st.integers(1, 10**9)


@given(attempts, jitters)
def test_the_delay_is_between_half_the_first_and_the_longest(attempt, jitter):
    assert FIRST_DELAY / 2 <= retry_delay(attempt, None, jitter) <= MAX_DELAY


@given(st.integers(1, 100), jitters)
def test_the_delay_never_shrinks_with_the_attempts(attempt, jitter):
    assert retry_delay(attempt, None, jitter) <= retry_delay(attempt + 1, None, jitter)


@given(attempts, st.floats(0, 1e9), jitters)
def test_the_wish_is_kept_up_to_its_bound(attempt, wish, jitter):
    delay = retry_delay(attempt, wish, jitter)
    assert delay >= min(wish, MAX_RETRY_AFTER)
    assert delay <= max(MAX_DELAY, MAX_RETRY_AFTER * 1.25)


def test_the_jitter_spreads_over_half_of_the_delay():
    assert retry_delay(1, None, 0.0) == FIRST_DELAY / 2
    assert retry_delay(2, None, 0.5) == FIRST_DELAY * 2 * 0.75


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": formatdate(1_000_060, usegmt=True)}, 60.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_the_wish_is_read_in_every_form(headers, seconds):
    assert parse_retry_after(headers, now=1_000_000) == seconds
