"""Alipay's notifications: payments, refunds, false ones, through a change of its keys."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateways.process import GatewayProcess
from tests.service.gateways.conftest import (
    alipay_config,
    an_order,
    paid_order,
    read,
    refund_of,
)
from vision.payments.errors import NotificationRefused
from vision.payments.gateway import RefundStanding


@pytest.fixture
def gateway(alipay_gateway):
    return alipay_gateway


@pytest.mark.gen_test
@pytest.mark.parametrize("variant", ["", "finished"])
async def test_a_notification_of_a_payment_is_read(gateway, simulator, variant):
    order, _ = await paid_order(gateway, simulator)
    sent = simulator.tell("notification", order=order.order_id, variant=variant)

    notification = await read(gateway, sent)

    assert (notification.kind, notification.order_id) == ("payment", order.order_id)
    assert notification.payment == (await gateway.query(order.order_id)).payment


@pytest.mark.gen_test
@pytest.mark.parametrize("amount", [300, 990])
async def test_a_refund_notification_is_never_taken_for_a_payment(gateway, simulator, amount):
    order, transaction_id = await paid_order(gateway, simulator)
    refund = refund_of(order, transaction_id, amount)
    await gateway.refund(refund)
    variant = f"refund:{refund.refund_id}"
    sent = simulator.tell("notification", order=order.order_id, variant=variant)

    notification = await read(gateway, sent)

    assert (notification.kind, notification.payment) == ("refund", None)
    assert notification.refund == RefundStanding(refund.refund_id, "done", None)
    assert notification.order_id == order.order_id


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("variant", "field", "value"),
    [
        ("wrong_amount", "amount", 989),
        ("wrong_merchant", "merchant", "2088102146225136"),
        ("other_app", "app", "2021000000000002"),
    ],
)
async def test_a_genuine_notification_says_what_it_says_for_settle_to_compare(
    gateway, simulator, variant, field, value
):
    order, _ = await paid_order(gateway, simulator)
    sent = simulator.tell("notification", order=order.order_id, variant=variant)

    notification = await read(gateway, sent)

    assert getattr(notification.payment, field) == value


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("variant", "why"),
    [
        ("other_key", "sign is false"),
        ("altered", "sign is false"),
        ("other_algorithm", "not RSA2"),
        ("exponent", "not what Alipay sends"),
    ],
)
async def test_a_false_notification_is_refused(gateway, simulator, variant, why):
    order, _ = await paid_order(gateway, simulator)
    sent = simulator.tell("notification", order=order.order_id, variant=variant)

    with pytest.raises(NotificationRefused, match=why):
        await read(gateway, sent)


@pytest.mark.gen_test
async def test_an_order_that_expired_notifies_and_has_no_effect(gateway, simulator):
    order, _ = await paid_order(gateway, simulator)
    sent = simulator.tell("notification", order=order.order_id, variant="closed")

    notification = await read(gateway, sent)

    assert (notification.kind, notification.payment) == ("other", None)


@pytest.mark.gen_test
async def test_both_certificates_are_believed_while_alipay_changes_them(
    opened, alipay_keys, tmp_path
):
    both = tmp_path / "both.crt"
    both.write_bytes(
        (alipay_keys / "alipay.crt").read_bytes() + (alipay_keys / "newer.crt").read_bytes()
    )
    log = tmp_path / "log"
    with GatewayProcess("alipay", alipay_keys, log, mode="certificate") as rotating:
        config = alipay_config(alipay_keys, rotating.base_url, certificate=both)
        gateway = await opened(config)
        order, _ = await paid_order(gateway, rotating)
        before = rotating.tell("notification", order=order.order_id)
        rotating.tell("rotate")
        after = rotating.tell("notification", order=order.order_id)

        assert (await gateway.query(order.order_id)).state == "paid"
        assert (await read(gateway, before)).kind == (await read(gateway, after)).kind == "payment"


@pytest.mark.gen_test
async def test_a_notification_may_come_before_the_answer_and_ten_times_at_once(
    opened, alipay, alipay_keys, receiver
):
    gateway = await opened(alipay_config(alipay_keys, alipay.base_url, notify=receiver.url))
    receiver.gateway = gateway
    order = an_order()
    alipay.tell("fault", call="precreate", kind="notify_before")

    await gateway.place(order)
    early = list(receiver.read)
    answers = await asyncio.to_thread(alipay.tell, "notify", order=order.order_id, times=10)

    assert [each.payment.order_id for each in early] == [order.order_id]
    assert answers == [{"status": 200, "body": "success"}] * 10
    assert set(receiver.read) == set(early)


@pytest.mark.gen_test
async def test_a_false_notification_is_not_answered_with_success(
    opened, alipay, alipay_keys, receiver
):
    gateway = await opened(alipay_config(alipay_keys, alipay.base_url, notify=receiver.url))
    receiver.gateway = gateway
    order, _ = await paid_order(gateway, alipay)

    [answer] = await asyncio.to_thread(
        alipay.tell, "notify", order=order.order_id, variant="other_key"
    )

    assert answer["status"] == 401
    assert "success" not in answer["body"]
    assert receiver.read == []
