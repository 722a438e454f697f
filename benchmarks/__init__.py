"""Measurements and long runs. None of them is part of the timed tests; all use loopback only."""
