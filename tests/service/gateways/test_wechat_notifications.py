"""WeChat Pay's notifications: genuine and false ones, through every change of its keys."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from tests.gateways.process import GatewayProcess
from tests.service.gateways.conftest import (
    an_order,
    paid_order,
    read,
    refund_of,
    wechat_config,
)
from vision.payments.errors import GatewayUnavailable, NotificationRefused
from vision.payments.gateway import RefundStanding


@pytest.mark.gen_test
@pytest.mark.parametrize("variant", ["", "public"])
async def test_notifications_by_either_kind_of_key_are_read_during_a_change(
    by_public_key, wechat, variant
):
    order, transaction_id = await paid_order(by_public_key, wechat)
    sent = wechat.tell("notification", order=order.order_id, variant=variant)

    notification = await read(by_public_key, sent)

    assert (notification.kind, notification.order_id, notification.channel) == (
        "payment",
        order.order_id,
        "tecent-pay",
    )
    assert notification.payment == (await by_public_key.query(order.order_id)).payment
    assert notification.payment.transaction_id == transaction_id


@pytest.mark.gen_test
async def test_a_refund_notification_is_no_payment(by_certificate, wechat):
    order, transaction_id = await paid_order(by_certificate, wechat)
    refund = refund_of(order, transaction_id, 990)
    await by_certificate.refund(refund)
    variant = f"refund:{refund.refund_id}"
    sent = wechat.tell("notification", order=order.order_id, variant=variant)

    notification = await read(by_certificate, sent)

    assert (notification.kind, notification.payment, notification.order_id) == (
        "refund",
        None,
        order.order_id,
    )
    assert notification.refund == RefundStanding(refund.refund_id, "done", 990)


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("variant", "field", "value"),
    [
        ("wrong_amount", "amount", 989),
        ("wrong_merchant", "merchant", "1900000110"),
        ("other_app", "app", "wx0000000000000000"),
    ],
)
async def test_a_genuine_notification_says_what_it_says_for_settle_to_compare(
    by_certificate, wechat, variant, field, value
):
    order, _ = await paid_order(by_certificate, wechat)
    sent = wechat.tell("notification", order=order.order_id, variant=variant)

    notification = await read(by_certificate, sent)

    assert getattr(notification.payment, field) == value


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("variant", "why"),
    [
        ("other_key", "Signature is false"),
        ("altered", "Signature is false"),
        ("signtest", "Signature is false"),
        ("old", "-30. s off"),
        ("future", r"\+3.. s off"),
        ("unknown_serial", "none that WeChat Pay has"),
        ("other_seal", "does not open"),
        ("text_amount", "not what WeChat Pay sends"),
    ],
)
async def test_a_false_notification_is_refused(by_certificate, wechat, variant, why):
    order, _ = await paid_order(by_certificate, wechat)
    sent = wechat.tell("notification", order=order.order_id, variant=variant)

    with pytest.raises(NotificationRefused, match=why):
        await read(by_certificate, sent)


@pytest.mark.gen_test
async def test_a_new_kind_of_event_is_acknowledged_and_has_no_effect(by_certificate, wechat):
    order, _ = await paid_order(by_certificate, wechat)
    sent = wechat.tell("notification", order=order.order_id, variant="other_event")

    notification = await read(by_certificate, sent)

    assert (notification.kind, notification.payment, notification.refund) == ("other", None, None)


@pytest.mark.gen_test
async def test_a_certificate_that_is_rotated_in_the_night_costs_no_notification(
    opened, wechat_keys, tmp_path
):
    with GatewayProcess("wechat", wechat_keys, tmp_path / "log") as rotating:
        gateway = await opened(wechat_config(wechat_keys, rotating.base_url))
        order, _ = await paid_order(gateway, rotating)
        before = rotating.tell("notification", order=order.order_id)
        await asyncio.sleep(0.25)  # the pause between two downloads, which this test is not about
        rotating.tell("rotate")
        after = rotating.tell("notification", order=order.order_id)

        reads = await asyncio.gather(*(read(gateway, sent) for sent in [before, after] * 10))

        assert {read.kind for read in reads} == {"payment"}
        assert rotating.tell("seen").count("certificates") == 2


@pytest.mark.gen_test
async def test_strangers_serials_make_one_download_and_no_more(opened, wechat_keys, tmp_path):
    with GatewayProcess("wechat", wechat_keys, tmp_path / "log") as process:
        config = wechat_config(wechat_keys, process.base_url)
        slow = dataclasses.replace(config.pace, refresh=60)
        gateway = await opened(dataclasses.replace(config, pace=slow))
        order, _ = await paid_order(gateway, process)
        sent = process.tell("notification", order=order.order_id)

        for serial in range(20):
            headers = sent["headers"] | {"Wechatpay-Serial": f"{serial:X}"}
            with pytest.raises(NotificationRefused):
                await gateway.read_notification(headers, sent["body"].encode(), time.time())

        assert process.tell("seen").count("certificates") == 1


@pytest.mark.gen_test
async def test_without_certificates_a_notification_is_to_be_sent_again(opened, wechat, wechat_keys):
    gateway = await opened(wechat_config(wechat_keys, wechat.base_url, public=True))
    order, _ = await paid_order(gateway, wechat)
    sent = wechat.tell("notification", order=order.order_id)
    wechat.tell("fault", call="certificates", kind="status:502", times=3)

    with pytest.raises(GatewayUnavailable):
        await read(gateway, sent)
    await asyncio.sleep(0.25)  # WeChat Pay repeats after 15 s, which is after the pause
    notification = await read(gateway, sent)

    assert notification.kind == "payment"


@pytest.mark.gen_test
async def test_a_notification_may_come_before_the_answer_and_ten_times_at_once(
    opened, wechat, wechat_keys, receiver
):
    config = wechat_config(wechat_keys, wechat.base_url, notify=receiver.url)
    gateway = receiver.gateway = await opened(config)
    order = an_order()
    wechat.tell("fault", call="place", kind="notify_before")

    await gateway.place(order)
    early = list(receiver.read)
    answers = await asyncio.to_thread(wechat.tell, "notify", order=order.order_id, times=10)

    assert [read.payment.order_id for read in early] == [order.order_id]
    assert answers == [{"status": 204, "body": ""}] * 10
    assert set(receiver.read) == set(early)


@pytest.mark.gen_test
async def test_a_false_notification_is_answered_as_documented(
    opened, wechat, wechat_keys, receiver
):
    config = wechat_config(wechat_keys, wechat.base_url, notify=receiver.url)
    gateway = receiver.gateway = await opened(config)
    order, _ = await paid_order(gateway, wechat)

    [answer] = await asyncio.to_thread(
        wechat.tell, "notify", order=order.order_id, variant="signtest"
    )

    assert answer["status"] == 401
    assert '"code":"FAIL"' in answer["body"]
    assert receiver.read == []
