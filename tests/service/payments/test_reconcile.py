"""No order waits for a notification that never comes, whichever process looks after it."""

from __future__ import annotations

import asyncio
from datetime import date

import pytest
import structlog

from tests.shop import START_MS, TOKENS, Shop, payment, unavailable
from vision.payments.gateway import BillLine
from vision.payments.lease import LEASE_MS
from vision.payments.order import Status
from vision.payments.refunds import RefundRequest

MINUTE = 60_000

# START_MS is 2023-11-14 22:13 UTC: the 15th, six in the morning, where the gateways are.
TODAY = date(2023, 11, 15)


@pytest.mark.gen_test
async def test_a_lost_notification_is_made_up_for(shop: Shop) -> None:
    order = await shop.order()
    shop.gateway.paid[order.order_id] = payment(order)

    await shop.payments.reconciler.round()
    assert (await shop.checkout.find(order.order_id)).status is Status.UNPAID
    shop.now += MINUTE
    await shop.payments.reconciler.round()

    assert (await shop.checkout.find(order.order_id)).status is Status.PAID


@pytest.mark.gen_test
async def test_the_intervals_grow_and_the_end_of_the_order_is_not_missed(shop: Shop) -> None:
    order = await shop.order()
    asked = []

    def note(name: str) -> None:
        if name == "query":
            asked.append((shop.now - START_MS) // MINUTE)

    shop.gateway.before = note
    for _ in range(121):
        await shop.payments.reconciler.round()
        shop.now += MINUTE

    assert asked[:5] == [1, 3, 7, 15, 30]
    assert asked[-1] == 120
    assert (await shop.checkout.find(order.order_id)).status is Status.CLOSED
    assert shop.gateway.closed == [order.order_id]


@pytest.mark.gen_test
async def test_one_order_that_cannot_be_asked_about_keeps_no_other_waiting(shop: Shop) -> None:
    first, second = await shop.order(), await shop.order()
    shop.gateway.paid[second.order_id] = payment(second)
    shop.now += MINUTE
    failing = iter([True, False])

    def fail_once(name: str) -> None:
        if name == "query" and next(failing):
            unavailable("query")(name)

    shop.gateway.before = fail_once
    with structlog.testing.capture_logs() as lines:
        await shop.payments.reconciler.round()

    assert (await shop.checkout.find(second.order_id)).status is Status.PAID
    assert (await shop.checkout.find(first.order_id)).next_check_at > shop.now
    assert [line["code"] for line in lines if line["event"] == "check_failed"] == [
        "gateway_unavailable"
    ]


@pytest.mark.gen_test
async def test_one_process_at_a_time_and_another_takes_over(shop: Shop, database_url: str) -> None:
    other = Shop(database_url)
    await shop.order()
    await shop.payments.reconciler.round()
    shop.now = other.now = START_MS + MINUTE // 2

    assert not await other.payments.reconciler._lease.take()
    other.now = shop.now + LEASE_MS
    assert await other.payments.reconciler._lease.take()
    assert not await shop.payments.reconciler._lease.take()
    await other.payments.reconciler._lease.give_up()
    assert await shop.payments.reconciler._lease.take()
    await other.close()


@pytest.mark.gen_test
async def test_of_many_at_once_one_gets_the_lease(shop: Shop, database_url: str) -> None:
    others = [Shop(database_url) for _ in range(8)]

    taken = await asyncio.gather(*(each.payments.reconciler._lease.take() for each in others))

    assert taken.count(True) == 1
    for each in others:
        await each.close()


@pytest.mark.gen_test
async def test_a_reconciler_that_is_cancelled_gives_its_lease_up(
    shop: Shop, database_url: str
) -> None:
    other = Shop(database_url)
    task = asyncio.create_task(shop.payments.reconciler.run())
    while not await shop.count("locks"):
        await asyncio.sleep(0.01)

    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert await other.payments.reconciler._lease.take()
    await other.close()


@pytest.mark.gen_test
async def test_a_bill_finds_what_differs_and_settles_what_was_missed(shop: Shop) -> None:
    missed, fine, wrong, ghost = [await shop.order(TOKENS, uid=f"u{n}") for n in range(4)]
    for order, number in ((fine, "t-fine"), (wrong, "t-wrong"), (ghost, "t-ghost")):
        await shop.settler.settle(payment(order, number), "notification")
    await shop.refunds.refund(RefundRequest(fine.order_id, 100, refund_id="r1"))
    shop.gateway.paid[missed.order_id] = payment(missed, "t-missed")
    shop.gateway.lines = [
        BillLine(missed.order_id, "t-missed", "payment", 500, None),
        BillLine(fine.order_id, "t-fine", "payment", 500, None),
        BillLine(fine.order_id, "t-fine", "refund", 100, "r1"),
        BillLine(fine.order_id, "t-fine", "refund", 50, "r2"),
        BillLine(wrong.order_id, "t-wrong", "payment", 499, None),
        BillLine("not ours", "t-other", "payment", 500, None),
    ]
    seen: list[tuple[int, int]] = []

    cases = await shop.payments.reconciler.compare(TODAY, lambda *each: seen.append(each))
    again = await shop.payments.reconciler.compare(TODAY, lambda *_: None)

    assert (await shop.checkout.find(missed.order_id)).status is Status.PAID
    assert {(case.kind, case.subject) for case in cases} == {
        ("bill_refund_not_here", "r2"),
        ("bill_amount", "alipay:t-wrong"),
        ("bill_payment_not_here", "alipay:t-other"),
        ("bill_payment_not_there", "alipay:t-ghost"),
    }
    assert list(again) == list(cases)
    assert await shop.cases() == list(cases)
    assert seen[-1] == (6, 6)


@pytest.mark.gen_test
async def test_the_bill_of_yesterday_is_compared_once_when_it_is_final(shop: Shop) -> None:
    asked = []
    shop.gateway.before = asked.append

    for _ in range(24):
        await shop.payments.reconciler.round()
        shop.now += 60 * MINUTE

    assert asked == ["bill", "bill"]
    assert sorted(await shop.column("bills", "day")) == ["2023-11-13", "2023-11-14"]


@pytest.mark.gen_test
async def test_a_bill_that_cannot_be_had_is_asked_for_again(shop: Shop) -> None:
    shop.gateway.before = unavailable("bill")
    await shop.payments.reconciler.round()
    assert await shop.count("bills") == 0
    shop.gateway.before = lambda _: None

    shop.now += 31 * MINUTE
    await shop.payments.reconciler.round()

    assert await shop.count("bills") == 1
