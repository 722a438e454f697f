"""Restarts are quick at first, ever slower, bounded, and never given up."""

from __future__ import annotations

from hypothesis import given, strategies as st

from vision.supervision import FIRST_DELAY, LONGEST_DELAY, delay


def test_after_a_steady_run_the_restart_is_at_once():
    assert delay(0) == 0.0
    assert delay(1) == FIRST_DELAY


@given(failures=st.integers(min_value=0, max_value=10**9))
def test_more_failures_never_make_the_next_start_sooner_nor_later_than_the_bound(failures):
    assert delay(failures) <= delay(failures + 1) <= LONGEST_DELAY
