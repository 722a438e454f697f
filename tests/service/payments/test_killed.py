"""kill -9 between any two steps loses nothing and does nothing twice."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tornado.ioloop import IOLoop

from tests.processes import ROOT
from tests.service.payments.killed import ACTIONS
from tests.shop import Shop
from vision.payments.product import PromoCode

# Fewer would mean that the children did not die where they should; see `killed.py`.
LEAST_STEPS = {"create": 13, "settle": 11, "tell": 13, "refund": 22, "close": 9}


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_that_was_killed_before_any_step_is_finished_by_the_next_try(
    io_loop: IOLoop, shop: Shop, database_url: str, action: str
) -> None:
    code = PromoCode("CODE", "fixed", 200)
    io_loop.run_sync(lambda: shop.sell(promo_codes=[code]))

    found = subprocess.run(
        [sys.executable, "-m", "tests.service.payments.killed", database_url, action],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert found.returncode == 0, found.stderr
    # Log lines come before it.
    assert int(found.stdout.splitlines()[-1]) >= LEAST_STEPS[action]
