"""Notifications are kept raw, verified, settled, and acknowledged only after that."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.shop import Shop, payment
from vision.payments.errors import GatewayUnavailable, NotificationRefused
from vision.payments.gateway import Notification, RefundStanding
from vision.payments.intake import LARGEST_BODY, UNVERIFIED_KEPT_MS
from vision.payments.order import Order, Status
from vision.payments.refunds import RefundRequest

BODY = b'\x00\xff{"raw": true}'


def paid(order: Order, amount: int | None = None) -> Notification:
    said = payment(order) if amount is None else payment(order, amount=amount)
    return Notification("alipay", "n1", "payment", said, None, order.order_id)


@pytest.mark.gen_test
async def test_a_payment_is_settled_and_kept_as_it_came(shop: Shop) -> None:
    order = await shop.order()
    shop.gateway.says = paid(order)

    answer = await shop.payments.intake.receive(
        "alipay", {"X-One": "1", "Authorization": "secret"}, BODY
    )

    assert (answer.status, answer.body) == (200, b"success")
    assert (await shop.checkout.find(order.order_id)).status is Status.PAID
    assert await shop.column("notifications", "body") == [BODY]
    assert await shop.column("notifications", "verdict") == [f"settled: {order.order_id}"]
    (headers,) = await shop.column("notifications", "headers")
    assert json.loads(headers) == {"X-One": "1"}


@pytest.mark.gen_test
async def test_ten_at_once_are_all_acknowledged_and_grant_once(shop: Shop) -> None:
    order = await shop.order()
    shop.gateway.says = paid(order)

    answers = await asyncio.gather(
        *(shop.payments.intake.receive("alipay", {}, BODY) for _ in range(10))
    )

    assert {answer.status for answer in answers} == {200}
    assert await shop.count("grants") == 1
    assert await shop.count("notifications") == 10


@pytest.mark.gen_test
async def test_a_refused_payment_is_received_and_a_case(shop: Shop) -> None:
    order = await shop.order()
    shop.gateway.says = paid(order, amount=1)

    answer = await shop.payments.intake.receive("alipay", {}, BODY)

    assert answer.status == 200
    assert await shop.column("notifications", "verdict") == ["refused: wrong_amount"]
    assert [case.kind for case in await shop.cases()] == ["wrong_amount"]
    assert await shop.count("grants") == 0


@pytest.mark.gen_test
async def test_what_does_not_come_from_the_gateway_is_refused_and_kept_for_a_while(
    shop: Shop,
) -> None:
    shop.gateway.says = NotificationRefused("the signature is not the gateway's")

    answer = await shop.payments.intake.receive("alipay", {}, BODY)

    assert (answer.status, answer.body) == (400, b"the signature is not the gateway's")
    assert await shop.column("notifications", "verified") == [False]
    shop.now += UNVERIFIED_KEPT_MS + 1
    await shop.payments.intake.forget()
    assert await shop.count("notifications") == 0


@pytest.mark.gen_test
async def test_verified_ones_are_never_forgotten(shop: Shop) -> None:
    shop.gateway.says = Notification("alipay", "n1", "other")
    await shop.payments.intake.receive("alipay", {}, BODY)

    shop.now += UNVERIFIED_KEPT_MS + 1
    await shop.payments.intake.forget()

    assert await shop.column("notifications", "verdict") == ["nothing to do"]


@pytest.mark.gen_test
async def test_what_cannot_be_verified_now_is_to_be_sent_again(shop: Shop) -> None:
    shop.gateway.says = GatewayUnavailable("the certificate cannot be fetched")

    assert (await shop.payments.intake.receive("alipay", {}, BODY)).status == 500


@pytest.mark.gen_test
async def test_what_is_too_large_is_not_kept(shop: Shop) -> None:
    answer = await shop.payments.intake.receive("alipay", {}, b"x" * (LARGEST_BODY + 1))

    assert answer.status == 400
    assert await shop.count("notifications") == 0
    shop.gateway.says = Notification("alipay", "n1", "other")
    await shop.payments.intake.receive("alipay", {}, b"x" * LARGEST_BODY)
    assert await shop.count("notifications") == 1


@pytest.mark.gen_test
async def test_a_refund_that_a_notification_tells_of_is_applied(shop: Shop) -> None:
    order = await shop.order()
    await shop.settler.settle(payment(order), "query")
    shop.gateway.refund_state = "pending"
    await shop.refunds.refund(RefundRequest(order.order_id, refund_id="r1"))
    standing = RefundStanding("r1", "done", 1200)
    shop.gateway.says = Notification("alipay", "n1", "refund", None, standing, order.order_id)

    answer = await shop.payments.intake.receive("alipay", {}, BODY)

    assert answer.status == 200
    assert (await shop.checkout.find(order.order_id)).status is Status.REFUNDED
