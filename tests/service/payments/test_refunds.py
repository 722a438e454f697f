"""Refunds never exceed the payment, and each takes its share back once."""

from __future__ import annotations

import asyncio

import pytest

from tests.shop import MONTH, START_MS, TOKENS, Shop, payment, unavailable
from vision.payments.entitlement import DAY_MS
from vision.payments.errors import GatewayRefused, RefundRefused, UnknownOrder
from vision.payments.gateway import RefundStanding
from vision.payments.order import Order, Status
from vision.payments.refunds import Refund, RefundRequest


async def paid(shop: Shop, uid: str = "u1", transaction_id: str = "t1") -> Order:
    order = await shop.order(MONTH, uid)
    await shop.settler.settle(payment(order, transaction_id), "notification")
    return await shop.checkout.find(order.order_id)


async def end(shop: Shop) -> int:
    (entitlement,) = await shop.checkout.entitlements("u1")
    return entitlement.ends_at


@pytest.mark.gen_test
async def test_a_full_refund_takes_everything_back(shop: Shop) -> None:
    order = await paid(shop)

    refund = await shop.refunds.refund(RefundRequest(order.order_id))

    assert (refund.state, refund.amount) == ("done", 1200)
    found = await shop.checkout.find(order.order_id)
    assert (found.status, found.refunded) == (Status.REFUNDED, 1200)
    assert await end(shop) <= START_MS
    assert shop.changes[-1].status is Status.REFUNDED


@pytest.mark.gen_test
async def test_a_part_takes_its_share_back_and_leaves_the_order_paid(shop: Shop) -> None:
    order = await paid(shop)

    await shop.refunds.refund(RefundRequest(order.order_id, 300))

    found = await shop.checkout.find(order.order_id)
    assert (found.status, found.refunded) == (Status.PAID, 300)
    assert await end(shop) == START_MS + 30 * DAY_MS * 3 // 4


@pytest.mark.gen_test
async def test_refunds_at_once_never_exceed_the_payment(shop: Shop, database_url: str) -> None:
    other = Shop(database_url)
    order = await paid(shop)

    answers = await asyncio.gather(
        *(
            each.refunds.refund(RefundRequest(order.order_id, 500, refund_id=f"r{number}"))
            for number, each in enumerate((shop, other) * 10)
        ),
        return_exceptions=True,
    )

    given = [each for each in answers if isinstance(each, Refund)]
    assert all(isinstance(each, Refund | RefundRefused) for each in answers), answers
    assert len(given) == 2
    assert sum(each.amount for each in shop.gateway.refunds + other.gateway.refunds) == 1000
    assert (await shop.checkout.find(order.order_id)).refunded == 1000
    with pytest.raises(RefundRefused, match=r"200 fen \(2.00 yuan\) are left"):
        await shop.refunds.refund(RefundRequest(order.order_id, 201))
    await other.close()


@pytest.mark.gen_test
async def test_the_same_number_is_the_same_refund_however_often_at_once(
    shop: Shop, database_url: str
) -> None:
    other = Shop(database_url)
    order = await paid(shop)
    request = RefundRequest(order.order_id, 300, refund_id="r1")

    refunds = await asyncio.gather(*(each.refunds.refund(request) for each in (shop, other) * 10))

    assert {refund.refund_id for refund in refunds} == {"r1"}
    assert (await shop.checkout.find(order.order_id)).refunded == 300
    assert await end(shop) == START_MS + 30 * DAY_MS * 3 // 4
    with pytest.raises(RefundRefused, match="the number was used for another refund"):
        await shop.refunds.refund(RefundRequest(order.order_id, 400, refund_id="r1"))
    await other.close()


@pytest.mark.gen_test
async def test_a_refund_without_an_answer_stays_reserved_and_is_finished_later(
    shop: Shop,
) -> None:
    order = await paid(shop)
    shop.gateway.after = unavailable("refund")

    pending = await shop.refunds.refund(RefundRequest(order.order_id, 1000))

    assert pending.state == "pending"
    assert (await shop.checkout.find(order.order_id)).refunded == 0
    with pytest.raises(RefundRefused):
        await shop.refunds.refund(RefundRequest(order.order_id, 201))
    shop.gateway.after = lambda _: None
    shop.now += 3_600_000
    await shop.payments.reconciler.round()
    assert (await shop.checkout.find(order.order_id)).refunded == 1000
    assert [each.amount for each in shop.gateway.refunds] == [1000]


@pytest.mark.gen_test
async def test_a_refused_refund_frees_what_it_reserved_and_takes_nothing_back(shop: Shop) -> None:
    order = await paid(shop)

    def refuse(name: str) -> None:
        if name == "refund":
            raise GatewayRefused("not enough", gateway_code="NOT_ENOUGH")

    shop.gateway.before = refuse
    with pytest.raises(GatewayRefused):
        await shop.refunds.refund(RefundRequest(order.order_id, refund_id="r1"))

    assert await end(shop) == START_MS + 30 * DAY_MS
    assert [case.kind for case in await shop.cases()] == ["refund_failed"]
    shop.gateway.before = lambda _: None
    with pytest.raises(RefundRefused, match="this refund has failed"):
        await shop.refunds.refund(RefundRequest(order.order_id, refund_id="r1"))
    assert (await shop.refunds.refund(RefundRequest(order.order_id))).state == "done"


@pytest.mark.gen_test
async def test_a_refund_that_both_answer_and_notification_tell_of_counts_once(shop: Shop) -> None:
    order = await paid(shop)
    shop.gateway.refund_state = "pending"
    await shop.refunds.refund(RefundRequest(order.order_id, 300, refund_id="r1"))
    done = RefundStanding("r1", "done", 300)

    await asyncio.gather(*(shop.refunds.apply(done, order.order_id) for _ in range(10)))

    assert (await shop.checkout.find(order.order_id)).refunded == 300
    assert await end(shop) == START_MS + 30 * DAY_MS * 3 // 4


@pytest.mark.gen_test
async def test_done_is_never_undone(shop: Shop) -> None:
    order = await paid(shop)
    await shop.refunds.refund(RefundRequest(order.order_id, 300, refund_id="r1"))

    await shop.refunds.apply(RefundStanding("r1", "failed", 300), order.order_id)

    assert (await shop.checkout.find(order.order_id)).refunded == 300
    assert await shop.column("payments", "reserved") == [300]


@pytest.mark.gen_test
async def test_a_payment_that_was_refused_can_be_given_back_without_touching_the_order(
    shop: Shop,
) -> None:
    order = await paid(shop)
    await shop.settler.settle(payment(order, "t2"), "notification")

    await shop.refunds.refund(RefundRequest(order.order_id, transaction_id="t2"))

    assert [each.transaction_id for each in shop.gateway.refunds] == ["t2"]
    assert (await shop.checkout.find(order.order_id)).status is Status.PAID
    assert await end(shop) == START_MS + 30 * DAY_MS


@pytest.mark.gen_test
async def test_what_was_never_paid_cannot_be_given_back(shop: Shop) -> None:
    order = await shop.order(TOKENS)

    with pytest.raises(RefundRefused, match="no payment of the order, which is unpaid"):
        await shop.refunds.refund(RefundRequest(order.order_id))
    with pytest.raises(UnknownOrder):
        await shop.refunds.refund(RefundRequest("0" * 32))


@pytest.mark.gen_test
async def test_a_refund_that_was_not_asked_for_here_is_a_case(shop: Shop) -> None:
    order = await paid(shop)

    found = await shop.refunds.apply(RefundStanding("r9", "done", 1200), order.order_id)

    assert found is None
    assert [case.kind for case in await shop.cases()] == ["unknown_refund"]
    assert (await shop.checkout.find(order.order_id)).status is Status.PAID
