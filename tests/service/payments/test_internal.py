"""A trusted caller's word settles the one order that it can mean, once, or nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.shop import MONTH, TOKENS, Shop, payment
from vision.errors import InvalidRequest
from vision.payments.errors import (
    AmbiguousOrder,
    OrderNotPayable,
    PriceMismatch,
    UnknownOrder,
)
from vision.payments.internal import Told
from vision.payments.order import Status
from vision.payments.product import PromoCode
from vision.payments.refunds import RefundRequest


@pytest.mark.gen_test
async def test_it_settles_the_one_unpaid_order_and_a_repetition_grants_nothing_more(
    shop: Shop,
) -> None:
    order = await shop.order()
    told = Told("u1", "month", 1200)

    first, again = await shop.internal.tell(told), await shop.internal.tell(told)

    assert (first.order_id, first.status) == (order.order_id, Status.PAID)
    assert again.order_id == order.order_id
    assert await shop.count("grants") == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("told", [Told("u1", "month", 1200), Told("u1", "month", 1200, None, "t")])
async def test_told_many_times_at_once_it_settles_once(
    shop: Shop, database_url: str, told: Told
) -> None:
    other = Shop(database_url)
    order = await shop.order()

    told_of = await asyncio.gather(*(each.internal.tell(told) for each in (shop, other) * 10))

    assert {each.order_id for each in told_of} == {order.order_id}
    assert await shop.count("grants") == await shop.count("payments") == 1
    await other.close()


@pytest.mark.gen_test
async def test_several_unpaid_orders_are_not_guessed_at(shop: Shop) -> None:
    await shop.order()
    second = await shop.order()

    with pytest.raises(AmbiguousOrder, match="orderId: 2 unpaid orders match"):
        await shop.internal.tell(Told("u1", "month", 1200))

    assert await shop.count("grants") == 0
    named = await shop.internal.tell(Told("u1", "month", 1200, second.order_id))
    assert named.order_id == second.order_id


@pytest.mark.gen_test
async def test_the_amount_tells_two_unpaid_orders_apart(shop: Shop) -> None:
    await shop.sell(promo_codes=[PromoCode("LESS", "fixed", 200)])
    await shop.order()
    cheaper = await shop.order(promo_code="LESS", amount=1000)

    settled = await shop.internal.tell(Told("u1", "month", 1000))

    assert settled.order_id == cheaper.order_id


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "told",
    [
        Told("u2", "month", 1200),
        Told("u1", "tokens", 1200),
        Told("u1", "month", 1200, "0" * 32),
        Told("u1", "month", 1200, "0" * 32, "t1"),
    ],
)
async def test_without_an_order_nothing_is_granted(shop: Shop, told: Told) -> None:
    await shop.order()

    with pytest.raises(UnknownOrder):
        await shop.internal.tell(told)

    assert await shop.count("grants") == 0
    kinds = ["internal_without_order"] if told.transaction_id else []
    assert [case.kind for case in await shop.cases()] == kinds


@pytest.mark.gen_test
async def test_an_order_of_somebody_else_is_not_settled_by_its_number(shop: Shop) -> None:
    order = await shop.order(uid="u2")

    with pytest.raises(UnknownOrder):
        await shop.internal.tell(Told("u1", "month", 1200, order.order_id))


@pytest.mark.gen_test
async def test_a_wrong_amount_is_refused_and_recorded_and_the_right_one_settles(
    shop: Shop,
) -> None:
    await shop.order()

    with pytest.raises(PriceMismatch, match=r"amount: expected 1200 fen \(12.00 yuan\), not 1199"):
        await shop.internal.tell(Told("u1", "month", 1199))

    assert await shop.count("grants") == 0
    assert [case.kind for case in await shop.cases()] == ["wrong_amount"]
    assert (await shop.internal.tell(Told("u1", "month", 1200))).status is Status.PAID


@pytest.mark.gen_test
async def test_a_transaction_settles_one_order_only(shop: Shop) -> None:
    await shop.order()
    await shop.order(TOKENS)
    await shop.internal.tell(Told("u1", "month", 1200, None, "t1"))

    with pytest.raises(InvalidRequest, match="transactionId: the transaction has paid another"):
        await shop.internal.tell(Told("u1", "tokens", 500, None, "t1"))

    assert await shop.count("grants") == 1


@pytest.mark.gen_test
async def test_new_money_for_a_paid_order_is_refused_and_recorded(shop: Shop) -> None:
    order = await shop.order()
    await shop.internal.tell(Told("u1", "month", 1200, None, "t1"))

    with pytest.raises(UnknownOrder):
        await shop.internal.tell(Told("u1", "month", 1200, None, "t2"))
    again = await shop.internal.tell(Told("u1", "month", 1200, order.order_id, "t2"))

    assert again.status is Status.PAID  # documented: an order that is already paid is a success
    assert await shop.count("grants") == 1
    assert "internal_without_order" in [case.kind for case in await shop.cases()]


@pytest.mark.gen_test
async def test_the_gateway_names_the_transaction_that_an_internal_caller_did_not(
    shop: Shop,
) -> None:
    order = await shop.order()
    await shop.internal.tell(Told("u1", "month", 1200))

    settlement = await shop.settler.settle(payment(order, "t1"), "notification")

    assert settlement.verdict == "already"
    assert (await shop.checkout.find(order.order_id)).transaction_id == "t1"
    assert await shop.column("payments", "transaction_id") == ["t1"]
    assert await shop.cases() == []
    twice = await shop.settler.settle(payment(order, "t2"), "notification")
    assert twice.refusal == "paid_twice"


@pytest.mark.gen_test
async def test_a_refund_asks_the_gateway_for_the_transaction_first(shop: Shop) -> None:
    order = await shop.order()
    await shop.internal.tell(Told("u1", "month", 1200))
    shop.gateway.paid[order.order_id] = payment(order, "t1")

    await shop.refunds.refund(RefundRequest(order.order_id))

    assert [each.transaction_id for each in shop.gateway.refunds] == ["t1"]
    assert (await shop.checkout.find(order.order_id)).status is Status.REFUNDED


@pytest.mark.gen_test
async def test_a_notification_and_an_internal_caller_at_once_settle_once(
    shop: Shop, database_url: str
) -> None:
    other = Shop(database_url)
    orders = [await shop.order(MONTH, uid=f"u{number}") for number in range(10)]

    await asyncio.gather(
        *(shop.internal.tell(Told(order.uid, "month", 1200)) for order in orders),
        *(other.settler.settle(payment(order, order.order_id), "notification") for order in orders),
    )

    assert await shop.count("grants") == await shop.count("payments") == 10
    assert await shop.cases() == []
    numbers = await shop.column("orders", "transaction_id")
    assert sorted(numbers) == sorted(order.order_id for order in orders)
    await other.close()


@pytest.mark.gen_test
async def test_a_payment_that_cannot_be_applied_is_an_error(shop: Shop) -> None:
    await shop.order()
    shop.gateway.merchant = "another"

    with pytest.raises(OrderNotPayable, match="wrong_merchant"):
        await shop.internal.tell(Told("u1", "month", 1200))
