"""An order is settled at most once, for exactly its money, and grants if and only if it is paid."""

from __future__ import annotations

import asyncio

import pytest

from tests.shop import START_MS, Shop, payment
from vision.payments.entitlement import DAY_MS
from vision.payments.order import Status


@pytest.mark.gen_test
async def test_a_payment_pays_its_order_and_grants_what_it_bought(shop: Shop) -> None:
    order = await shop.order()

    settlement = await shop.settler.settle(payment(order), "notification")

    assert settlement.verdict == "settled"
    assert (await shop.checkout.find(order.order_id)).status is Status.PAID
    assert (await shop.checkout.find(order.order_id)).transaction_id == "t1"
    (entitlement,) = await shop.checkout.entitlements("u1")
    assert entitlement.ends_at == START_MS + 30 * DAY_MS
    assert [order.status for order in shop.changes] == [Status.PAID]


@pytest.mark.gen_test
async def test_the_same_payment_from_all_paths_at_once_settles_once(
    shop: Shop, database_url: str
) -> None:
    order = await shop.order()
    others = [Shop(database_url) for _ in range(4)]
    sources = ("notification", "query", "reconcile", "internal")

    settlements = await asyncio.gather(
        *(
            each.settler.settle(payment(order), sources[number % 4])
            for number in range(10)
            for each in (shop, *others)
        )
    )

    verdicts = [each.verdict for each in settlements]
    assert (verdicts.count("settled"), verdicts.count("already")) == (1, 49)
    assert await shop.count("grants") == await shop.count("payments") == 1
    (entitlement,) = await shop.checkout.entitlements("u1")
    assert entitlement.ends_at == START_MS + 30 * DAY_MS
    assert await shop.cases() == []
    for each in others:
        await each.close()
