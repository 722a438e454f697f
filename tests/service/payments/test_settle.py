"""An order is settled at most once, for exactly its money, and grants if and only if it is paid."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.shop import MONTH, START_MS, TOKENS, Shop, orphans, payment
from vision.payments.entitlement import DAY_MS
from vision.payments.order import Status
from vision.payments.product import PromoCode


@pytest.mark.gen_test
async def test_a_payment_pays_its_order_and_grants_what_it_bought(shop: Shop) -> None:
    order = await shop.order()

    settlement = await shop.settler.settle(payment(order), "notification")

    assert settlement.verdict == "settled"
    found = await shop.checkout.find(order.order_id)
    assert (found.status, found.transaction_id) == (Status.PAID, "t1")
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


@pytest.mark.gen_test
async def test_orders_of_one_user_settled_at_once_are_all_granted(
    shop: Shop, database_url: str
) -> None:
    others = [Shop(database_url) for _ in range(3)]
    orders = [await shop.order(TOKENS if number % 2 else MONTH) for number in range(20)]

    settlements = await asyncio.gather(
        *(
            (shop, *others)[number % 4].settler.settle(payment(order, f"t{number}"), "query")
            for number, order in enumerate(orders)
        )
    )

    assert {each.verdict for each in settlements} == {"settled"}
    (entitlement,) = await shop.checkout.entitlements("u1")
    assert entitlement.ends_at == START_MS + 10 * 30 * DAY_MS
    assert entitlement.tokens == 10 * 1000
    for each in others:
        await each.close()


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"amount": 1199}, "wrong_amount"),
        ({"amount": 1201}, "wrong_amount"),
        ({"currency": "USD"}, "wrong_currency"),
        ({"merchant": "merchant-2"}, "wrong_merchant"),
        ({"app": "app-2"}, "wrong_app"),
        ({"order_id": "0" * 32}, "unknown_order"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_payment_that_does_not_fit_grants_nothing_and_is_a_case_once(
    shop: Shop, wrong: dict[str, Any], why: str
) -> None:
    order = await shop.order()

    first = await shop.settler.settle(payment(order, **wrong), "notification")
    again = await shop.settler.settle(payment(order, **wrong), "query")

    assert (first.verdict, first.refusal, again.refusal) == ("refused", why, why)
    assert (await shop.checkout.find(order.order_id)).status is Status.UNPAID
    assert await shop.count("grants") == 0
    assert [case.kind for case in await shop.cases()] == [why]


@pytest.mark.gen_test
async def test_a_payment_of_another_channel_is_refused(shop: Shop) -> None:
    order = await shop.order()
    shop.settler._gateways = {"alipay": shop.gateway, "tecent-pay": shop.gateway}

    settlement = await shop.settler.settle(payment(order, channel="tecent-pay"), "query")

    assert settlement.refusal == "wrong_channel"


@pytest.mark.gen_test
async def test_a_refused_payment_settles_when_what_was_wrong_is_mended(shop: Shop) -> None:
    order = await shop.order()
    shop.gateway.merchant = "mistyped"
    refused = await shop.settler.settle(payment(order), "notification")
    shop.gateway.merchant = "merchant-1"

    settled = await shop.settler.settle(payment(order), "reconcile")

    assert (refused.verdict, settled.verdict) == ("refused", "settled")
    assert await orphans(shop.database) == 0


@pytest.mark.gen_test
async def test_a_second_transaction_for_a_paid_order_is_a_case_and_grants_nothing(
    shop: Shop,
) -> None:
    order = await shop.order()
    await shop.settler.settle(payment(order, "t1"), "notification")

    twice = await shop.settler.settle(payment(order, "t2"), "notification")

    assert twice.refusal == "paid_twice"
    assert await shop.count("grants") == 1
    assert [case.kind for case in await shop.cases()] == ["paid_twice"]


@pytest.mark.gen_test
async def test_two_transactions_for_one_order_at_once_settle_one(
    shop: Shop, database_url: str
) -> None:
    other = Shop(database_url)
    order = await shop.order()

    settlements = await asyncio.gather(
        *(
            each.settler.settle(payment(order, f"t{number}"), "notification")
            for number, each in enumerate((shop, other) * 10)
        )
    )

    assert [each.verdict for each in settlements].count("settled") == 1
    assert await shop.count("grants") == 1
    assert await orphans(shop.database) == 0
    await other.close()


@pytest.mark.gen_test
async def test_one_transaction_cannot_pay_two_orders(shop: Shop) -> None:
    first, second = await shop.order(), await shop.order()

    verdicts = await asyncio.gather(
        shop.settler.settle(payment(first, "t1"), "notification"),
        shop.settler.settle(payment(second, "t1"), "notification"),
    )

    assert sorted(each.verdict for each in verdicts) == ["refused", "settled"]
    assert await shop.count("grants") == 1
    assert await orphans(shop.database) == 0


@pytest.mark.gen_test
async def test_money_that_comes_after_the_close_is_granted_and_a_person_is_told(shop: Shop) -> None:
    order = await shop.order()
    shop.now = order.expires_at
    await shop.checkout.look(order, "reconcile")
    assert (await shop.checkout.find(order.order_id)).status is Status.CLOSED

    settlement = await shop.settler.settle(payment(order), "notification")

    assert settlement.verdict == "settled"
    assert await shop.count("grants") == 1
    assert [case.kind for case in await shop.cases()] == ["paid_late"]


@pytest.mark.gen_test
async def test_late_money_with_a_code_that_has_gone_to_others_waits_for_its_refund(
    shop: Shop,
) -> None:
    await shop.sell(promo_codes=[PromoCode("ONE", "fixed", 200, total_limit=1)])
    order = await shop.order(promo_code="ONE", amount=1000)
    shop.now = order.expires_at
    await shop.checkout.look(order, "reconcile")
    await shop.order(uid="u2", promo_code="ONE", amount=1000)

    settlement = await shop.settler.settle(payment(order), "notification")

    assert settlement.refusal == "promo_used_up"
    assert await shop.column("promo_codes", "used") == [1]
    assert await shop.count("grants") == 0


@pytest.mark.gen_test
async def test_closing_and_paying_at_once_end_with_the_order_paid(
    shop: Shop, database_url: str
) -> None:
    other = Shop(database_url)
    orders = [await shop.order(uid=f"u{number}") for number in range(20)]
    shop.now = orders[0].expires_at

    await asyncio.gather(
        *(shop.checkout.look(order, "reconcile") for order in orders),
        *(other.settler.settle(payment(order, order.order_id), "notification") for order in orders),
    )

    found = [await shop.checkout.find(order.order_id) for order in orders]
    assert {order.status for order in found} == {Status.PAID}
    assert await shop.count("grants") == 20
    await other.close()
