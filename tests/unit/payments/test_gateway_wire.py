"""What the gateways' messages say, read to the letter; what is not theirs is refused."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from hypothesis import given, strategies as st

from vision.payments import alipay_wire, wechat_wire
from vision.payments.alipay_wire import read_node
from vision.payments.errors import GatewayUnavailable, NotificationRefused
from vision.payments.gateway import BillLine, RefundStanding, Standing

PAID = {
    "appid": "wx1",
    "mchid": "1900",
    "out_trade_no": "order-1",
    "transaction_id": "4200",
    "trade_state": "SUCCESS",
    "success_time": "2026-01-01T00:00:00+08:00",
    "amount": {"total": 990, "payer_total": 1, "currency": "CNY"},
}
NOTIFIED = {
    "notify_id": "n1",
    "out_trade_no": "order-1",
    "trade_no": "2026",
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "9.90",
    "seller_id": "2088",
    "app_id": "2021",
    "gmt_payment": "2026-01-01 00:00:00",
}


@pytest.mark.parametrize(
    ("trade_state", "state"),
    [
        ("NOTPAY", "unpaid"),
        ("USERPAYING", "unpaid"),
        ("PAYERROR", "unpaid"),
        ("CLOSED", "closed"),
        ("REVOKED", "closed"),
        ("ACCEPT", "unknown"),
    ],
)
def test_wechat_states_without_a_payment(trade_state, state):
    body = json.dumps({"mchid": "1", "out_trade_no": "o", "trade_state": trade_state}).encode()

    assert wechat_wire.read_standing(body, "o") == Standing(state)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": None},
        {"amount": {"total": "990"}},
        {"amount": {"total": 990.0}},
        {"amount": {"total": True}},
        {"transaction_id": ""},
        {"success_time": "2026-01-01T00:00:00"},
        {"success_time": ""},
        {"mchid": 1900},
    ],
)
def test_a_wechat_payment_that_does_not_say_all_is_no_answer(changes):
    with pytest.raises(GatewayUnavailable):
        wechat_wire.read_standing(json.dumps(PAID | changes).encode(), "order-1")


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("SUCCESS", "done"),
        ("PROCESSING", "pending"),
        ("ABNORMAL", "pending"),
        ("CLOSED", "failed"),
        ("NEW", "unknown"),
    ],
)
def test_wechat_refunds_stand_as_they_say(status, state):
    refund = {"out_refund_no": "r", "out_trade_no": "o", "amount": {"refund": 3}, "status": status}

    read = wechat_wire.read_refund(json.dumps(refund).encode(), "r")

    assert read == RefundStanding("r", state, 3)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_readers_fail_otherwise_than_by_refusing(body):
    for read in (wechat_wire.read_code, wechat_wire.read_bill, alipay_wire.read_bill):
        try:
            read(body)
        except GatewayUnavailable:
            continue
    with pytest.raises(NotificationRefused):
        wechat_wire.read_event(body, bytes(32))


def test_a_wechat_bill_is_read_by_its_columns_whatever_their_order():
    names = "商户订单号,交易状态,订单金额,申请退款金额,商户退款单号,微信订单号,商品名称"
    rows = ["`o1,`SUCCESS,`0.01,`0.00,`,`t1,`a,b", "`o1,`REFUND,`0.00,`0.01,`r1,`t1,`a,b"]
    rows.append("`o2,`REVOKED,`1.00,`0.00,`,`t2,`c")
    bill = "\r\n".join(["\ufeff" + names, *rows, "总交易单数", "`3"])

    assert wechat_wire.read_bill(bill.encode()) == [
        BillLine("o1", "t1", "payment", 1, None),
        BillLine("o1", "t1", "refund", 1, "r1"),
    ]


@pytest.mark.parametrize("line", ["`o1,`SUCCESS", "`o1,`SUCCESS,`1e2", "`o1,`SUCCESS,`0.001"])
def test_a_wechat_bill_with_a_broken_line_is_not_read_in_part(line):
    bill = f"商户订单号,交易状态,订单金额\r\n{line}\r\n"

    with pytest.raises(GatewayUnavailable):
        wechat_wire.read_bill(bill.encode())


def zipped(text):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", text.encode("gbk"))
    return packed.getvalue()


def test_an_alipay_bill_keeps_commas_in_names_and_both_kinds_of_brackets():
    for brackets in ("（元）", "(元)"):
        names = f"支付宝交易号,商户订单号,业务类型,商品名称,订单金额{brackets},退款批次号/请求号"
        rows = ["t1\t,o1\t,交易 ,a,b,c,9.90, ", "t1,o1,退款,a,-9.90,r1", "t2,o2,其他,a,1.00,"]

        assert alipay_wire.read_bill(zipped("\r\n".join(["#x", names, *rows, "#y"]))) == [
            BillLine("o1", "t1", "payment", 990, None),
            BillLine("o1", "t1", "refund", 990, "r1"),
        ]


@pytest.mark.parametrize("name", ["refund_fee", "gmt_refund"])
@pytest.mark.parametrize("status", ["TRADE_SUCCESS", "TRADE_FINISHED", "TRADE_CLOSED"])
def test_whatever_tells_of_a_refund_at_alipay_is_no_payment(name, status):
    read = alipay_wire.read_notification(NOTIFIED | {name: "", "trade_status": status})

    assert (read.kind, read.payment, read.refund) == ("refund", None, None)


@pytest.mark.parametrize(
    "name", ["notify_id", "out_trade_no", "trade_no", "total_amount", "seller_id", "app_id"]
)
def test_an_alipay_payment_that_does_not_say_all_is_refused(name):
    with pytest.raises(NotificationRefused):
        alipay_wire.read_notification(NOTIFIED | {name: ""})


@pytest.mark.parametrize("amount", ["9.9", "9.90", "0.01", "100"])
def test_an_alipay_amount_is_read_exactly(amount):
    read = alipay_wire.read_notification(NOTIFIED | {"total_amount": amount})

    yuan, _, part = amount.partition(".")
    assert read.payment.amount == int(yuan) * 100 + int(part.ljust(2, "0"))


def test_an_alipay_answer_about_another_order_is_none():
    node = read_node(b'{"code":"10000","out_trade_no":"o2","trade_status":"WAIT_BUYER_PAY"}')

    with pytest.raises(GatewayUnavailable, match="another order"):
        alipay_wire.read_standing(node, "o1", merchant="m", app="a")
