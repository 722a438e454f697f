"""WeChat Pay against its simulator: every call, every kind of failure, every false message."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import secrets
import time
from functools import partial

import pytest

from tests.gateways import keys
from tests.gateways.process import GatewayProcess
from tests.service.gateways.conftest import an_order, now_ms, wechat_config
from vision.payments.errors import GatewayRefused, GatewayUnavailable, NotificationRefused
from vision.payments.gateway import BillLine, RefundOrder, RefundStanding, Standing

TODAY = datetime.date(2026, 1, 1)


@pytest.fixture(params=["certificates", "public key"])
def gateway(request, io_loop, opened, wechat, wechat_keys):
    public = request.param == "public key"
    return io_loop.run_sync(
        partial(opened, wechat_config(wechat_keys, wechat.base_url, public=public))
    )


@pytest.fixture
def by_certificate(io_loop, opened, wechat, wechat_keys):
    return io_loop.run_sync(partial(opened, wechat_config(wechat_keys, wechat.base_url)))


@pytest.fixture
def by_public_key(io_loop, opened, wechat, wechat_keys):
    return io_loop.run_sync(
        partial(opened, wechat_config(wechat_keys, wechat.base_url, public=True))
    )


async def paid_order(gateway, wechat, amount=990):
    order = an_order(amount)
    await gateway.place(order)
    return order, wechat.tell("pay", order=order.order_id)


def refund_of(order, transaction_id, amount, refund_id=None):
    refund_id = refund_id or secrets.token_hex(16)
    return RefundOrder(order.order_id, transaction_id, refund_id, amount, order.amount, "退款")


@pytest.mark.gen_test
async def test_an_order_is_placed_paid_and_found_paid(gateway, wechat):
    order = an_order()

    placement = await gateway.place(order)
    before = await gateway.query(order.order_id)
    transaction_id = wechat.tell("pay", order=order.order_id)
    after = await gateway.query(order.order_id)

    assert placement.url.startswith("weixin://")
    assert before == Standing("unpaid")
    assert after.state == "paid"
    payment = after.payment
    assert (payment.order_id, payment.transaction_id) == (order.order_id, transaction_id)
    # The whole price, though a coupon made the payer pay less.
    assert (payment.amount, payment.currency, payment.channel) == (990, "CNY", "tecent-pay")
    assert (payment.merchant, payment.app) == (keys.WECHAT_MERCHANT, keys.WECHAT_APP)
    assert abs(payment.paid_at - now_ms()) < 5000


@pytest.mark.gen_test
async def test_a_code_is_given_again_for_the_same_order_and_refused_for_another_amount(gateway):
    order = an_order()
    first = await gateway.place(order)

    assert await gateway.place(order) == first
    with pytest.raises(GatewayRefused) as refused:
        await gateway.place(dataclasses.replace(order, amount=1))
    assert refused.value.gateway_code == "OUT_TRADE_NO_USED"


@pytest.mark.gen_test
async def test_an_order_that_was_placed_without_an_answer_is_placed_again(by_public_key, wechat):
    order = an_order()
    wechat.tell("fault", call="place", kind="hang_after")

    placement = await by_public_key.place(order)

    assert placement.url.startswith("weixin://")


@pytest.mark.gen_test
async def test_a_gateway_that_never_answers_is_unavailable_within_its_time(by_public_key, wechat):
    wechat.tell("fault", call="query", kind="hang", times=3)
    begin = time.monotonic()

    with pytest.raises(GatewayUnavailable, match="wechat does not answer"):
        await by_public_key.query("0123456789")

    assert time.monotonic() - begin < 6


@pytest.mark.gen_test
@pytest.mark.parametrize(
    "kind",
    ["altered", "other_key", "old", "future", "unsigned", "signtest", "status:503", "status:404"],
)
async def test_an_answer_that_is_not_shown_to_be_wechat_counts_as_none(gateway, wechat, kind):
    order, _ = await paid_order(gateway, wechat)
    wechat.tell("fault", call="query", kind=kind, times=3)

    with pytest.raises(GatewayUnavailable):
        await gateway.query(order.order_id)

    assert (await gateway.query(order.order_id)).state == "paid"


@pytest.mark.gen_test
async def test_a_passing_refusal_is_tried_again(gateway, wechat):
    order, _ = await paid_order(gateway, wechat)
    wechat.tell("fault", call="query", kind="code:500:SYSTEM_ERROR")
    wechat.tell("fault", call="query", kind="code:429:FREQUENCY_LIMITED")

    assert (await gateway.query(order.order_id)).state == "paid"


@pytest.mark.gen_test
async def test_a_merchant_that_wechat_does_not_know_is_told_what_to_check(
    opened, wechat, wechat_keys
):
    config = wechat_config(wechat_keys, wechat.base_url, public=True)
    other = dataclasses.replace(config.merchant, number="1")

    with pytest.raises(GatewayRefused, match="wechat-merchant-id") as refused:
        gateway = await opened(dataclasses.replace(config, merchant=other))
        await gateway.query("0123456789")
    assert refused.value.gateway_code == "SIGN_ERROR"


@pytest.mark.gen_test
async def test_an_unpaid_order_is_closed_and_then_no_longer_payable(gateway):
    order = an_order()
    await gateway.place(order)

    assert await gateway.close(order.order_id) == Standing("closed")
    assert await gateway.query(order.order_id) == Standing("closed")
    assert await gateway.close(order.order_id) == Standing("closed")
    with pytest.raises(GatewayRefused):
        await gateway.place(order)


@pytest.mark.gen_test
async def test_an_order_that_is_paid_while_it_is_closed_is_found_paid(gateway, wechat):
    order = an_order()
    await gateway.place(order)
    wechat.tell("fault", call="close", kind="pay_before")

    standing = await gateway.close(order.order_id)

    assert standing.state == "paid"
    assert standing.payment.amount == 990


@pytest.mark.gen_test
async def test_an_order_that_wechat_never_saw_is_unpaid_and_counts_as_closed(gateway):
    assert await gateway.query("never-seen-123") == Standing("unpaid")
    assert await gateway.close("never-seen-123") == Standing("closed")


@pytest.mark.gen_test
async def test_a_number_with_every_documented_sign_is_sent_as_it_was_signed(gateway):
    order = dataclasses.replace(an_order(), order_id=f"a-B_9|*{secrets.token_hex(8)}")

    await gateway.place(order)

    assert await gateway.query(order.order_id) == Standing("unpaid")


@pytest.mark.gen_test
async def test_a_refund_is_given_once_however_often_its_number_is_sent(gateway, wechat):
    order, transaction_id = await paid_order(gateway, wechat)
    refund = refund_of(order, transaction_id, 300)
    wechat.tell("fault", call="refund", kind="hang_after")

    first = await gateway.refund(refund)
    again = await gateway.refund(refund)

    assert first == again == RefundStanding(refund.refund_id, "done", 300)
    assert wechat.tell("order", order=order.order_id)["refunds"] == {refund.refund_id: 300}
    assert await gateway.query_refund(refund) == first
    standing = await gateway.query(order.order_id)
    assert (standing.state, standing.payment.amount) == ("refunded", 990)


@pytest.mark.gen_test
async def test_a_genuine_answer_about_another_order_counts_as_none(gateway, wechat):
    order, transaction_id = await paid_order(gateway, wechat)
    refund = refund_of(order, transaction_id, 1)
    for call in ("query", "refund"):
        wechat.tell("fault", call=call, kind="another_order")

    with pytest.raises(GatewayUnavailable, match="another order"):
        await gateway.query(order.order_id)
    with pytest.raises(GatewayUnavailable, match="another"):
        await gateway.refund(refund)


@pytest.mark.gen_test
async def test_refunds_beyond_the_payment_are_refused(gateway, wechat):
    order, transaction_id = await paid_order(gateway, wechat)
    await gateway.refund(refund_of(order, transaction_id, 600))

    with pytest.raises(GatewayRefused) as refused:
        await gateway.refund(refund_of(order, transaction_id, 391))

    assert refused.value.gateway_code == "NOT_ENOUGH"


@pytest.mark.gen_test
async def test_a_refund_that_wechat_never_saw_is_unknown(gateway, wechat):
    order, transaction_id = await paid_order(gateway, wechat)
    refund = refund_of(order, transaction_id, 1)

    assert await gateway.query_refund(refund) == RefundStanding(refund.refund_id, "unknown", None)


@pytest.mark.gen_test
async def test_a_bill_has_every_payment_and_every_refund(gateway, wechat):
    order, transaction_id = await paid_order(gateway, wechat, 1005)
    refund = refund_of(order, transaction_id, 7)
    await gateway.refund(refund)

    lines = [line for line in await gateway.bill(TODAY) if line.order_id == order.order_id]

    assert lines == [
        BillLine(order.order_id, transaction_id, "payment", 1005, None),
        BillLine(order.order_id, transaction_id, "refund", 7, refund.refund_id),
    ]


@pytest.mark.gen_test
async def test_a_day_without_orders_has_an_empty_bill(gateway, wechat):
    wechat.tell("fault", call="bill", kind="code:400:NO_STATEMENT_EXIST")

    assert await gateway.bill(TODAY) == []


@pytest.mark.gen_test
async def test_a_bill_that_is_not_what_was_announced_is_not_read(opened, wechat_keys, tmp_path):
    with GatewayProcess("wechat", wechat_keys, tmp_path / "log") as altering:
        gateway = await opened(wechat_config(wechat_keys, altering.base_url))
        await paid_order(gateway, altering)
        altering.tell("alter_bill")

        with pytest.raises(GatewayUnavailable, match="hash"):
            await gateway.bill(TODAY)


@pytest.mark.gen_test
@pytest.mark.parametrize("variant", ["", "public"])
async def test_notifications_by_either_kind_of_key_are_read_during_a_change(
    by_public_key, wechat, variant
):
    order, transaction_id = await paid_order(by_public_key, wechat)
    sent = wechat.tell("notification", order=order.order_id, variant=variant)

    read = await by_public_key.read_notification(
        sent["headers"], sent["body"].encode(), time.time()
    )

    assert (read.kind, read.order_id, read.channel) == ("payment", order.order_id, "tecent-pay")
    assert read.payment == (await by_public_key.query(order.order_id)).payment
    assert read.payment.transaction_id == transaction_id


@pytest.mark.gen_test
async def test_a_refund_notification_is_no_payment(by_certificate, wechat):
    order, transaction_id = await paid_order(by_certificate, wechat)
    refund = refund_of(order, transaction_id, 990)
    await by_certificate.refund(refund)
    variant = f"refund:{refund.refund_id}"
    sent = wechat.tell("notification", order=order.order_id, variant=variant)

    read = await by_certificate.read_notification(
        sent["headers"], sent["body"].encode(), time.time()
    )

    assert (read.kind, read.payment, read.order_id) == ("refund", None, order.order_id)
    assert read.refund == RefundStanding(refund.refund_id, "done", 990)


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

    read = await by_certificate.read_notification(
        sent["headers"], sent["body"].encode(), time.time()
    )

    assert getattr(read.payment, field) == value


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
        await by_certificate.read_notification(sent["headers"], sent["body"].encode(), time.time())


@pytest.mark.gen_test
async def test_a_new_kind_of_event_is_acknowledged_and_has_no_effect(by_certificate, wechat):
    order, _ = await paid_order(by_certificate, wechat)
    sent = wechat.tell("notification", order=order.order_id, variant="other_event")

    read = await by_certificate.read_notification(
        sent["headers"], sent["body"].encode(), time.time()
    )

    assert (read.kind, read.payment, read.refund) == ("other", None, None)


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

        reads = await asyncio.gather(
            *(
                gateway.read_notification(sent["headers"], sent["body"].encode(), time.time())
                for sent in [before, after] * 10
            )
        )

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
        await gateway.read_notification(sent["headers"], sent["body"].encode(), time.time())
    await asyncio.sleep(0.25)  # WeChat Pay repeats after 15 s, which is after the pause
    read = await gateway.read_notification(sent["headers"], sent["body"].encode(), time.time())

    assert read.kind == "payment"


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
