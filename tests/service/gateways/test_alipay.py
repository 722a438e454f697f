"""Alipay against its simulator: every call, both modes, every kind of failure and false message."""

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
from tests.service.gateways.conftest import alipay_config, an_order, now_ms
from vision.payments.errors import GatewayRefused, GatewayUnavailable, NotificationRefused
from vision.payments.gateway import BillLine, RefundOrder, RefundStanding, Standing

TODAY = datetime.date(2026, 1, 1)


@pytest.fixture(scope="module")
def with_certificates(alipay_keys, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log"
    with GatewayProcess("alipay", alipay_keys, log, mode="certificate") as process:
        yield process


@pytest.fixture(params=["public key", "certificates"])
def simulator(request, alipay, with_certificates):
    return alipay if request.param == "public key" else with_certificates


@pytest.fixture
def gateway(io_loop, opened, simulator, with_certificates, alipay_keys):
    certificate = alipay_keys / "alipay.crt" if simulator is with_certificates else None
    config = alipay_config(alipay_keys, simulator.base_url, certificate=certificate)
    return io_loop.run_sync(partial(opened, config))


async def paid_order(gateway, simulator, amount=990):
    order = an_order(amount)
    await gateway.place(order)
    return order, simulator.tell("pay", order=order.order_id)


def refund_of(order, transaction_id, amount):
    number = secrets.token_hex(16)
    return RefundOrder(order.order_id, transaction_id, number, amount, order.amount, "退款")


async def read(gateway, sent):
    return await gateway.read_notification(sent["headers"], sent["body"].encode(), time.time())


@pytest.mark.gen_test
async def test_an_order_is_placed_scanned_paid_and_found_paid(gateway, simulator):
    order = an_order(1)

    placement = await gateway.place(order)
    unscanned = await gateway.query(order.order_id)
    simulator.tell("scan", order=order.order_id)
    scanned = await gateway.query(order.order_id)
    transaction_id = simulator.tell("pay", order=order.order_id)
    paid = await gateway.query(order.order_id)

    assert placement.url.startswith("https://qr.alipay.com/")
    assert unscanned == scanned == Standing("unpaid")
    assert paid.state == "paid"
    payment = paid.payment
    assert (payment.order_id, payment.transaction_id) == (order.order_id, transaction_id)
    assert (payment.amount, payment.currency, payment.channel) == (1, "CNY", "alipay")
    assert (payment.merchant, payment.app) == (keys.ALIPAY_SELLER, keys.ALIPAY_APP)
    assert abs(payment.paid_at - now_ms()) < 5000


@pytest.mark.gen_test
@pytest.mark.parametrize("amount", [1, 10, 29, 57, 110, 115, 12345, 100_000_000])
async def test_no_amount_loses_a_fen_on_its_way(gateway, simulator, amount):
    order, _ = await paid_order(gateway, simulator, amount)

    assert simulator.tell("order", order=order.order_id)["amount"] == amount
    assert (await gateway.query(order.order_id)).payment.amount == amount


@pytest.mark.gen_test
async def test_a_code_is_given_again_for_the_same_order_and_refused_for_another_amount(gateway):
    order = an_order()
    first = await gateway.place(order)

    assert await gateway.place(order) == first
    with pytest.raises(GatewayRefused) as refused:
        await gateway.place(dataclasses.replace(order, amount=1))
    assert refused.value.gateway_code == "ACQ.CONTEXT_INCONSISTENT"


@pytest.mark.gen_test
async def test_an_order_that_was_placed_without_an_answer_is_placed_again(gateway, simulator):
    simulator.tell("fault", call="precreate", kind="hang_after")

    placement = await gateway.place(an_order())

    assert placement.url.startswith("https://qr.alipay.com/")


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", ["altered", "other_key", "unsigned", "newer", "status:502"])
async def test_an_answer_that_is_not_shown_to_be_alipay_counts_as_none(gateway, simulator, kind):
    order, _ = await paid_order(gateway, simulator)
    simulator.tell("fault", call="query", kind=kind, times=3)

    with pytest.raises(GatewayUnavailable):
        await gateway.query(order.order_id)

    assert (await gateway.query(order.order_id)).state == "paid"


@pytest.mark.gen_test
@pytest.mark.parametrize("code", ["20000:isp.unknow-error", "10003:"])
async def test_what_alipay_cannot_tell_is_unknown(gateway, simulator, code):
    order, _ = await paid_order(gateway, simulator)
    simulator.tell("fault", call="query", kind=f"code:{code}", times=1)

    standing = await gateway.query(order.order_id)

    assert standing == Standing("unknown")


@pytest.mark.gen_test
async def test_a_passing_refusal_of_a_refund_is_tried_again(gateway, simulator):
    order, transaction_id = await paid_order(gateway, simulator)
    simulator.tell("fault", call="refund", kind="code:20000:isp.unknow-error")
    simulator.tell("fault", call="refund", kind="code:40004:ACQ.SYSTEM_ERROR")

    done = await gateway.refund(refund_of(order, transaction_id, 1))

    assert done.state == "done"


@pytest.mark.gen_test
async def test_our_signature_that_alipay_refuses_is_quoted(opened, alipay, alipay_keys):
    config = alipay_config(alipay_keys, alipay.base_url)

    with pytest.raises(GatewayRefused) as refused:
        await (await opened(dataclasses.replace(config, app="1"))).query("0123456789")

    assert refused.value.gateway_code == "isv.invalid-parameter"


@pytest.mark.gen_test
async def test_a_scanned_order_is_closed_and_then_no_longer_payable(gateway, simulator):
    order = an_order()
    await gateway.place(order)
    simulator.tell("scan", order=order.order_id)

    assert await gateway.close(order.order_id) == Standing("closed")
    assert await gateway.query(order.order_id) == Standing("closed")
    assert await gateway.close(order.order_id) == Standing("closed")
    with pytest.raises(GatewayRefused):
        await gateway.place(order)


@pytest.mark.gen_test
async def test_an_order_that_nobody_scanned_counts_as_closed(gateway):
    order = an_order()
    await gateway.place(order)

    assert await gateway.close(order.order_id) == Standing("closed")


@pytest.mark.gen_test
async def test_an_order_that_is_paid_while_it_is_closed_is_found_paid(gateway, simulator):
    order = an_order()
    await gateway.place(order)
    simulator.tell("fault", call="close", kind="pay_before")

    standing = await gateway.close(order.order_id)

    assert (standing.state, standing.payment.amount) == ("paid", 990)


@pytest.mark.gen_test
async def test_cancel_gives_a_payment_back(gateway, simulator):
    paid, _ = await paid_order(gateway, simulator)
    unpaid = an_order()
    await gateway.place(unpaid)

    assert await gateway.cancel(paid.order_id) == "refunded"
    assert await gateway.cancel(unpaid.order_id) == "closed"


@pytest.mark.gen_test
async def test_a_refund_is_given_once_however_often_its_number_is_sent(gateway, simulator):
    order, transaction_id = await paid_order(gateway, simulator)
    refund = refund_of(order, transaction_id, 290)
    simulator.tell("fault", call="refund", kind="hang_after")

    first = await gateway.refund(refund)
    again = await gateway.refund(refund)

    assert first == again == RefundStanding(refund.refund_id, "done", 290)
    assert simulator.tell("order", order=order.order_id)["refunds"] == {refund.refund_id: 290}
    assert (await gateway.query(order.order_id)).state == "paid"  # in part


@pytest.mark.gen_test
async def test_a_refund_that_moved_nothing_is_not_taken_for_done(gateway, simulator):
    order, transaction_id = await paid_order(gateway, simulator)
    refund = refund_of(order, transaction_id, 290)
    simulator.tell("fault", call="refund", kind="nothing_moved")

    standing = await gateway.refund(refund)

    assert standing == RefundStanding(refund.refund_id, "unknown", None)


@pytest.mark.gen_test
async def test_an_order_that_was_refunded_whole_is_not_taken_for_one_that_expired(
    gateway, simulator
):
    order, transaction_id = await paid_order(gateway, simulator)
    await gateway.refund(refund_of(order, transaction_id, 990))

    standing = await gateway.query(order.order_id)

    assert (standing.state, standing.payment.amount) == ("refunded", 990)


@pytest.mark.gen_test
async def test_a_genuine_answer_about_another_order_counts_as_none(gateway, simulator):
    order, transaction_id = await paid_order(gateway, simulator)
    refund = refund_of(order, transaction_id, 1)
    for call in ("query", "refund"):
        simulator.tell("fault", call=call, kind="another_order")

    with pytest.raises(GatewayUnavailable, match="another order"):
        await gateway.query(order.order_id)
    with pytest.raises(GatewayUnavailable, match="another"):
        await gateway.refund(refund)


@pytest.mark.gen_test
async def test_refunds_beyond_the_payment_are_refused(gateway, simulator):
    order, transaction_id = await paid_order(gateway, simulator)
    await gateway.refund(refund_of(order, transaction_id, 600))

    with pytest.raises(GatewayRefused):
        await gateway.refund(refund_of(order, transaction_id, 391))


@pytest.mark.gen_test
async def test_a_refund_that_alipay_never_saw_is_unknown(gateway, simulator):
    order, transaction_id = await paid_order(gateway, simulator)
    refund = refund_of(order, transaction_id, 1)

    assert await gateway.query_refund(refund) == RefundStanding(refund.refund_id, "unknown", None)


@pytest.mark.gen_test
async def test_a_bill_has_every_payment_and_every_refund(gateway, simulator):
    order, transaction_id = await paid_order(gateway, simulator, 1005)
    refund = refund_of(order, transaction_id, 7)
    await gateway.refund(refund)

    lines = [line for line in await gateway.bill(TODAY) if line.order_id == order.order_id]

    assert lines == [
        BillLine(order.order_id, transaction_id, "payment", 1005, None),
        BillLine(order.order_id, transaction_id, "refund", 7, refund.refund_id),
    ]


@pytest.mark.gen_test
async def test_a_day_without_orders_has_an_empty_bill(gateway, simulator):
    simulator.tell("fault", call="bill", kind="code:40004:isp.bill_not_exist")

    assert await gateway.bill(TODAY) == []


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
