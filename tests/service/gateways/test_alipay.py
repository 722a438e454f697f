"""Alipay against its simulator: every call, both modes, every kind of failure and false answer."""

from __future__ import annotations

import dataclasses
import datetime

import pytest

from tests.gateways import keys
from tests.service.gateways.conftest import (
    alipay_config,
    an_order,
    now_ms,
    paid_order,
    refund_of,
)
from vision.payments.errors import GatewayRefused, GatewayUnavailable
from vision.payments.gateway import BillLine, RefundStanding, Standing

TODAY = datetime.date(2026, 1, 1)


@pytest.fixture
def gateway(alipay_gateway):
    return alipay_gateway


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
