"""What Alipay's answers, notifications and bills say, in the words of `gateway`.

The law: nothing here is called before the bytes were shown to be genuine. A refund notifies on the
same URL and with the same `trade_status` as a payment; it has `refund_fee` or `gmt_refund`, and
whatever has one of them is never taken for a payment. The amount is `total_amount`, what the order
cost. Amounts are digits, never floats.

Pure. Source: payment-protocols, "Alipay, face to face".
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from vision.payments.errors import GatewayUnavailable, NotificationRefused
from vision.payments.exchange import MOST_BILL
from vision.payments.gateway import BillLine, Notification, Payment, RefundStanding, Standing
from vision.payments.moments import beijing_ms
from vision.payments.money import CURRENCY, fen

PAID: Final = {"TRADE_SUCCESS", "TRADE_FINISHED"}
_CODE_SUCCESS: Final = "10000"


class Node(msgspec.Struct):
    """A response node: what all have, and what the calls here look at."""

    code: str
    msg: str = ""
    sub_code: str = ""
    sub_msg: str = ""
    out_trade_no: str = ""
    out_request_no: str = ""
    trade_no: str = ""
    trade_status: str = ""
    total_amount: str = ""
    send_pay_date: str = ""
    qr_code: str = ""
    action: str = ""
    fund_change: str = ""
    refund_amount: str = ""
    refund_status: str = ""
    bill_download_url: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether Alipay did, or answered, what was asked."""
        return self.code == _CODE_SUCCESS


def read_node(raw: bytes) -> Node:
    """A genuine response node. Raises GatewayUnavailable for what is none."""
    try:
        return msgspec.json.decode(raw, type=Node)
    except msgspec.MsgspecError as error:
        raise GatewayUnavailable(f"alipay's answer cannot be read: {error}") from error


def read_standing(node: Node, order_id: str, *, merchant: str, app: str) -> Standing:
    """The answer of a query. It names neither merchant nor app: it is genuine and answers for ours.

    Raises GatewayUnavailable.
    """
    if node.out_trade_no != order_id:
        raise GatewayUnavailable("alipay answers about another order")
    if node.trade_status == "WAIT_BUYER_PAY":
        return Standing("unpaid")
    if node.trade_status == "TRADE_CLOSED" and not node.send_pay_date:
        return Standing("closed")
    if node.trade_status not in {*PAID, "TRADE_CLOSED"}:
        return Standing("unknown")
    try:
        payment = Payment(
            channel="alipay",
            order_id=order_id,
            transaction_id=_filled(node.trade_no, "trade_no"),
            amount=fen(node.total_amount),
            currency=CURRENCY,
            merchant=merchant,
            app=app,
            paid_at=beijing_ms(node.send_pay_date),
        )
    except ValueError as error:
        raise GatewayUnavailable(f"alipay says paid, but not what: {error}") from error
    return Standing("paid" if node.trade_status in PAID else "refunded", payment)


def read_refund(node: Node, refund_id: str) -> RefundStanding:
    """The answer of a refund query: without `REFUND_SUCCESS` it was not received, or failed.

    Raises GatewayUnavailable.
    """
    if node.out_request_no not in {"", refund_id}:
        raise GatewayUnavailable("alipay answers about another refund")
    if node.refund_status != "REFUND_SUCCESS":
        return RefundStanding(refund_id, "unknown", None)
    try:
        amount = fen(node.refund_amount) if node.refund_amount else None
    except ValueError as error:
        raise GatewayUnavailable(f"alipay's refund cannot be read: {error}") from error
    return RefundStanding(refund_id, "done", amount)


def read_notification(parameters: Mapping[str, str]) -> Notification:
    """A notification whose signature has been checked. Raises NotificationRefused."""
    try:
        identity = _filled(parameters.get("notify_id", ""), "notify_id")
        order_id = parameters.get("out_trade_no") or None
        if "refund_fee" in parameters or "gmt_refund" in parameters:
            refund = _refund_of(parameters)
            return Notification("alipay", identity, "refund", refund=refund, order_id=order_id)
        if parameters.get("trade_status") in PAID:
            payment = _payment_of(parameters)
            return Notification("alipay", identity, "payment", payment=payment, order_id=order_id)
    except ValueError as error:
        raise NotificationRefused(f"not what Alipay sends: {error}") from error
    return Notification("alipay", identity, "other", order_id=order_id)


def read_bill(content: bytes) -> Sequence[BillLine]:
    """The lines of a trade bill: a zip with CSV files in GBK, details and sums.

    Raises GatewayUnavailable for what is no such bill.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [
                line
                for entry in archive.infolist()
                for line in _bill_lines(_unpacked(archive, entry))
            ]
    except (zipfile.BadZipFile, KeyError, ValueError, csv.Error) as error:
        raise GatewayUnavailable(f"alipay's bill cannot be read: {error}") from error


def _payment_of(parameters: Mapping[str, str]) -> Payment:
    given = {
        name: _filled(parameters.get(name, ""), name)
        for name in ("out_trade_no", "trade_no", "total_amount", "seller_id", "app_id")
    }
    return Payment(
        channel="alipay",
        order_id=given["out_trade_no"],
        transaction_id=given["trade_no"],
        amount=fen(given["total_amount"]),
        currency=CURRENCY,
        merchant=given["seller_id"],
        app=given["app_id"],
        paid_at=beijing_ms(parameters.get("gmt_payment") or parameters.get("notify_time", "")),
    )


def _refund_of(parameters: Mapping[str, str]) -> RefundStanding | None:
    """Which refund it is; `refund_fee` is the sum of all refunds of the order, so how much this one
    gave back is not said."""
    refund_id = parameters.get("out_biz_no")
    return RefundStanding(refund_id, "done", None) if refund_id else None


def _filled(text: str, name: str) -> str:
    if not text:
        raise ValueError(f"{name} is missing")
    return text


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str:
    if entry.file_size > MOST_BILL:
        raise ValueError(f"more than {MOST_BILL} bytes")
    return archive.read(entry).decode("gb18030")  # GBK and what has been added to it since


def _bill_lines(text: str) -> Iterator[BillLine]:
    """The details of one file; the file of sums has other columns, and none of these."""
    rows = csv.reader(line for line in text.splitlines() if not line.startswith("#"))
    names = [_plain(cell) for cell in next(rows, [])]
    if "商户订单号" not in names:
        return
    for row in rows:
        cells = dict(zip(names, _joined(row, names), strict=True))
        kind = cells["业务类型"]
        if kind == "交易":
            yield _bill_line(cells, "payment", None)
        elif kind == "退款":
            yield _bill_line(cells, "refund", cells["退款批次号/请求号"])


def _plain(name: str) -> str:
    """A column's name with one kind of brackets: both kinds occur."""
    return name.strip().replace("（", "(").replace("）", ")")


def _joined(row: Sequence[str], names: Sequence[str]) -> list[str]:
    """The cells of a row; commas in a product's name, which are not quoted, make too many."""
    cells = [cell.strip() for cell in row]
    surplus = len(cells) - len(names)
    if surplus > 0:
        at = names.index("商品名称")
        cells[at : at + surplus + 1] = [",".join(cells[at : at + surplus + 1])]
    return cells


def _bill_line(
    cells: Mapping[str, str], kind: Literal["payment", "refund"], refund_id: str | None
) -> BillLine:
    return BillLine(
        order_id=cells["商户订单号"],
        transaction_id=cells["支付宝交易号"],
        kind=kind,
        amount=fen(cells["订单金额(元)"].removeprefix("-")),
        refund_id=refund_id,
    )
