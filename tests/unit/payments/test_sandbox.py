"""The sandbox: a gateway like the others, whose cashier is ours."""

from __future__ import annotations

import datetime
import secrets
import time

import pytest

from vision.payments.errors import (
    GatewayRefused,
    NotificationRefused,
    OrderNotPayable,
    UnknownOrder,
)
from vision.payments.gateway import BillLine, PlaceOrder, RefundOrder, RefundStanding, Standing
from vision.payments.sandbox import open_sandbox

NOW = 1_800_000_000.5
CHANNELS = ("tecent-pay", "alipay")


@pytest.fixture(params=CHANNELS)
def channel(request):
    return request.param


@pytest.fixture
def sandbox(io_loop, tmp_path, channel):
    async def opened():
        return await open_sandbox(tmp_path, "http://127.0.0.1:1/cashier", [channel])

    return io_loop.run_sync(opened)[channel]


def an_order(amount=990):
    return PlaceOrder(secrets.token_hex(16), amount, "a day", int(NOW * 1000) + 7_200_000)


def refund_of(order, amount, number="r1"):
    return RefundOrder(order.order_id, "t", number, amount, order.amount, "")


@pytest.mark.gen_test
async def test_an_order_is_paid_at_the_cashier_and_its_notification_is_genuine(sandbox, channel):
    order = an_order()
    placement = await sandbox.place(order)
    sandbox.pay(order.order_id, NOW)
    callback = sandbox.callback(order.order_id, NOW)

    read = await sandbox.read_notification(callback.headers, callback.body, NOW)

    assert order.order_id in placement.url
    assert (read.kind, read.channel, read.order_id) == ("payment", channel, order.order_id)
    standing = await sandbox.query(order.order_id)
    assert standing.state == "paid"
    payment = standing.payment
    assert read.payment.paid_at == payment.paid_at // 1000 * 1000  # the wire has no milliseconds
    same = ("order_id", "transaction_id", "amount", "currency", "merchant", "app")
    for name in same:
        assert getattr(read.payment, name) == getattr(payment, name)


@pytest.mark.gen_test
async def test_a_changed_notification_is_refused(sandbox):
    order = an_order()
    await sandbox.place(order)
    sandbox.pay(order.order_id, NOW)
    callback = sandbox.callback(order.order_id, NOW)

    with pytest.raises(NotificationRefused):
        await sandbox.read_notification(callback.headers, callback.body + b" ", NOW)


@pytest.mark.gen_test
async def test_a_notification_of_another_sandbox_is_refused(sandbox, channel, tmp_path):
    (tmp_path / "other").mkdir()
    other = (await open_sandbox(tmp_path / "other", "http://127.0.0.1:1/c", [channel]))[channel]
    order = an_order()
    await other.place(order)
    other.pay(order.order_id, NOW)
    callback = other.callback(order.order_id, NOW)

    with pytest.raises(NotificationRefused):
        await sandbox.read_notification(callback.headers, callback.body, NOW)


@pytest.mark.gen_test
async def test_what_happened_is_there_after_a_restart(sandbox, channel, tmp_path):
    paid, refunded, cut = an_order(), an_order(), an_order()
    for order in (paid, refunded):
        await sandbox.place(order)
        sandbox.pay(order.order_id, NOW)
    await sandbox.refund(refund_of(refunded, 5))
    callback = sandbox.callback(paid.order_id, NOW)
    before = list(sandbox.orders())
    await sandbox.place(cut)
    journal = tmp_path / f"sandbox-{channel}.jsonl"
    journal.write_bytes(journal.read_bytes()[:-3])  # killed while it wrote the last line

    again = (await open_sandbox(tmp_path, "http://127.0.0.1:1/cashier", [channel]))[channel]

    assert {order.order_id: order for order in again.orders()} == {
        order.order_id: order for order in before
    }
    assert (await again.read_notification(callback.headers, callback.body, NOW)).kind == "payment"
    await again.place(cut)
    assert await again.query(cut.order_id) == Standing("unpaid")


@pytest.mark.gen_test
async def test_a_payer_may_say_no_and_then_yes(sandbox):
    order = an_order()
    await sandbox.place(order)

    declined = sandbox.decline(order.order_id)

    assert declined.declined
    assert await sandbox.query(order.order_id) == Standing("unpaid")
    await sandbox.place(order)
    assert sandbox.pay(order.order_id, NOW).state == "paid"


@pytest.mark.gen_test
async def test_only_pay_late_pays_what_has_expired_or_was_closed(sandbox):
    expired, closed = an_order(), an_order()
    for order in (expired, closed):
        await sandbox.place(order)
    assert await sandbox.close(closed.order_id) == Standing("closed")
    late = expired.expires_at / 1000

    for order in (expired, closed):
        with pytest.raises(OrderNotPayable):
            sandbox.pay(order.order_id, late)
        sandbox.pay_late(order.order_id, late)
        assert (await sandbox.query(order.order_id)).state == "paid"
        with pytest.raises(OrderNotPayable):
            sandbox.pay_late(order.order_id, late)


@pytest.mark.gen_test
async def test_closing_a_paid_order_finds_it_paid(sandbox):
    order = an_order()
    await sandbox.place(order)
    sandbox.pay(order.order_id, NOW)

    assert (await sandbox.close(order.order_id)).state == "paid"
    with pytest.raises(GatewayRefused):
        await sandbox.place(order)


@pytest.mark.gen_test
async def test_a_number_is_taken_by_its_content(sandbox):
    order = an_order()
    first = await sandbox.place(order)
    other = PlaceOrder(order.order_id, 1, order.description, order.expires_at)

    assert await sandbox.place(order) == first
    with pytest.raises(GatewayRefused):
        await sandbox.place(other)


@pytest.mark.gen_test
async def test_refunds_count_once_and_never_exceed_the_payment(sandbox):
    order = an_order()
    await sandbox.place(order)
    with pytest.raises(GatewayRefused):
        await sandbox.refund(refund_of(order, 1))
    sandbox.pay(order.order_id, NOW)

    for _ in range(2):
        assert await sandbox.refund(refund_of(order, 600)) == RefundStanding("r1", "done", 600)
    with pytest.raises(GatewayRefused):
        await sandbox.refund(refund_of(order, 391, "r2"))

    assert await sandbox.query_refund(refund_of(order, 600)) == RefundStanding("r1", "done", 600)
    assert (await sandbox.query_refund(refund_of(order, 391, "r2"))).state == "unknown"
    assert (await sandbox.query(order.order_id)).state == "refunded"


@pytest.mark.gen_test
async def test_the_bill_of_a_day_has_what_was_paid_on_it(sandbox):
    order = an_order()
    await sandbox.place(order)
    number = sandbox.pay(order.order_id, NOW).transaction_id
    await sandbox.refund(refund_of(order, 90))
    china = datetime.timezone(datetime.timedelta(hours=8))
    day = datetime.datetime.fromtimestamp(NOW, china).date()

    assert await sandbox.bill(day) == [
        BillLine(order.order_id, number, "payment", 990, None),
        BillLine(order.order_id, number, "refund", 90, "r1"),
    ]
    assert await sandbox.bill(day + datetime.timedelta(days=1)) == []


@pytest.mark.gen_test
async def test_what_was_never_placed_is_unknown_at_the_cashier_and_unpaid_for_us(sandbox):
    assert await sandbox.query("nothing") == Standing("unpaid")
    assert await sandbox.close("nothing") == Standing("closed")
    for act in (sandbox.pay, sandbox.pay_late, sandbox.callback):
        with pytest.raises(UnknownOrder):
            act("nothing", time.time())


def test_answers_have_the_channels_form(sandbox, channel):
    answers = (sandbox.acknowledge(), sandbox.refuse("why", retry=True))

    if channel == "alipay":
        assert [(each.status, each.body) for each in answers] == [
            (200, b"success"),
            (500, b"fail: why"),
        ]
    else:
        assert (answers[0].status, answers[0].body) == (204, b"")
        assert (answers[1].status, answers[1].body) == (500, b'{"code":"FAIL","message":"why"}')
