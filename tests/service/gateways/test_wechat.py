"""WeChat Pay against its simulator: every call, every kind of failure, every false answer."""

from __future__ import annotations

import dataclasses
import datetime
import secrets
import time
from functools import partial

import pytest

from tests.gateways import keys
from tests.gateways.process import GatewayProcess
from tests.service.gateways.conftest import (
    an_order,
    now_ms,
    paid_order,
    refund_of,
    wechat_config,
)
from vision.payments.errors import GatewayRefused, GatewayUnavailable
from vision.payments.gateway import BillLine, RefundStanding, Standing

TODAY = datetime.date(2026, 1, 1)


@pytest.fixture(params=["certificates", "public key"])
def gateway(request, io_loop, opened, wechat, wechat_keys):
    public = request.param == "public key"
    return io_loop.run_sync(
        partial(opened, wechat_config(wechat_keys, wechat.base_url, public=public))
    )


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
