"""What WeChat Pay's JSON and bills say, in the words of `gateway`.

The law: nothing here is called before the bytes were shown to be genuine. A field that is missing
or of another type refuses the whole message; nothing is guessed. The amount is `amount.total`, what
the order cost: `payer_total` is less when WeChat Pay gave a coupon.

Pure. Source: payment-protocols, "WeChat Pay API v3, Native".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from vision.payments.errors import GatewayUnavailable, NotificationRefused
from vision.payments.gateway import BillLine, Notification, Payment, RefundStanding, Standing
from vision.payments.moments import rfc3339_ms
from vision.payments.money import fen
from vision.payments.wechat_signing import unseal

_T = TypeVar("_T")

_TRADE_STATES: Final[dict[str, Literal["unpaid", "paid", "closed", "refunded"]]] = {
    "SUCCESS": "paid",
    "REFUND": "refunded",
    "NOTPAY": "unpaid",
    "USERPAYING": "unpaid",
    "PAYERROR": "unpaid",  # the payer may try again with the same code
    "CLOSED": "closed",
    "REVOKED": "closed",
}
_REFUND_STATES: Final[dict[str, Literal["done", "pending", "failed", "unknown"]]] = {
    "SUCCESS": "done",
    "PROCESSING": "pending",
    # The payer's bank did not take it; a person finishes it at WeChat Pay. The money is on its way
    # to the payer all the same: another refund would give it twice.
    "ABNORMAL": "pending",
    "CLOSED": "failed",
}


class _Amount(msgspec.Struct):
    total: int
    currency: str = "CNY"  # WeChat Pay leaves it out of some answers; it settles in nothing else


class _Transaction(msgspec.Struct):
    mchid: str
    out_trade_no: str
    trade_state: str
    appid: str = ""
    transaction_id: str = ""
    success_time: str = ""
    amount: _Amount | None = None


class _RefundAmount(msgspec.Struct):
    refund: int


class _Refund(msgspec.Struct):
    out_refund_no: str
    out_trade_no: str
    amount: _RefundAmount
    status: str = ""  # in an answer
    refund_status: str = ""  # in a notification


class Sealed(msgspec.Struct):
    """A sealed resource, in a notification or in the list of certificates."""

    algorithm: str
    ciphertext: str
    nonce: str
    associated_data: str = ""

    def open(self, api_v3_key: bytes) -> bytes:
        """The plain bytes. Raises NotificationRefused."""
        return unseal(
            api_v3_key,
            algorithm=self.algorithm,
            nonce=self.nonce,
            associated_data=self.associated_data,
            ciphertext=self.ciphertext,
        )


class _Event(msgspec.Struct):
    id: str
    event_type: str
    resource: Sealed


class _Refusal(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Code(msgspec.Struct):
    code_url: str


class _BillPlace(msgspec.Struct):
    download_url: str
    hash_type: str
    hash_value: str


class _CertificateEntry(msgspec.Struct):
    encrypt_certificate: Sealed


class _Certificates(msgspec.Struct):
    data: list[_CertificateEntry]


def read_standing(body: bytes, order_id: str) -> Standing:
    """The answer of a query for this order. A signature does not say which question it answers.

    Raises GatewayUnavailable for what is no such answer.
    """
    transaction = _decode(body, _Transaction)
    if transaction.out_trade_no != order_id:
        raise GatewayUnavailable("wechat answers about another order")
    return _standing(transaction)


def read_refund(body: bytes, refund_id: str) -> RefundStanding:
    """The answer of this refund or of its query. Raises GatewayUnavailable."""
    refund = _decode(body, _Refund)
    if refund.out_refund_no != refund_id:
        raise GatewayUnavailable("wechat answers about another refund")
    return _refund(refund)


def read_code(body: bytes) -> str:
    """The code URL of an order. Raises GatewayUnavailable."""
    return _decode(body, _Code).code_url


def read_bill_place(body: bytes) -> tuple[str, str, str]:
    """Where a bill is: its URL, the kind of its hash and the hash. Raises GatewayUnavailable."""
    place = _decode(body, _BillPlace)
    return place.download_url, place.hash_type, place.hash_value


def read_sealed_certificates(body: bytes) -> Sequence[Sealed]:
    """The certificates, each still sealed. Raises GatewayUnavailable."""
    return [entry.encrypt_certificate for entry in _decode(body, _Certificates).data]


def read_refusal(body: bytes) -> tuple[str, str]:
    """The code and the message of an error answer. Raises GatewayUnavailable."""
    refusal = _decode(body, _Refusal)
    return refusal.code, refusal.message


def read_event(body: bytes, api_v3_key: bytes) -> Notification:
    """A notification whose signature has been checked. Raises NotificationRefused."""
    try:
        event = msgspec.json.decode(body, type=_Event)
        if event.event_type == "TRANSACTION.SUCCESS":
            return _paid(event, event.resource.open(api_v3_key))
        if event.event_type.startswith("REFUND."):
            return _refunded(event, event.resource.open(api_v3_key))
    except (msgspec.MsgspecError, GatewayUnavailable, ValueError) as error:
        raise NotificationRefused(f"not what WeChat Pay sends: {error}") from error
    return Notification(channel="tecent-pay", id=event.id, kind="other")


def read_bill(content: bytes) -> Sequence[BillLine]:
    """The lines of a trade bill (CSV, every value behind a backtick, then two lines of sums).

    Raises GatewayUnavailable for what is no such bill.
    """
    try:
        return list(_bill_lines(content.decode()))
    except (KeyError, ValueError) as error:
        raise GatewayUnavailable(f"wechat's bill cannot be read: {error}") from error


def _paid(event: _Event, plain: bytes) -> Notification:
    transaction = _decode(plain, _Transaction)
    standing = _standing(transaction)
    return Notification(
        channel="tecent-pay",
        id=event.id,
        kind="payment" if standing.state == "paid" else "other",
        payment=standing.payment if standing.state == "paid" else None,
        order_id=transaction.out_trade_no,
    )


def _refunded(event: _Event, plain: bytes) -> Notification:
    refund = _decode(plain, _Refund)
    return Notification(
        channel="tecent-pay",
        id=event.id,
        kind="refund",
        refund=_refund(refund),
        order_id=refund.out_trade_no,
    )


def _standing(transaction: _Transaction) -> Standing:
    state = _TRADE_STATES.get(transaction.trade_state)
    if state is None:
        return Standing("unknown")
    if state not in {"paid", "refunded"}:
        return Standing(state)
    return Standing(state, _payment(transaction))


def _payment(transaction: _Transaction) -> Payment:
    if transaction.amount is None or not transaction.transaction_id:
        raise GatewayUnavailable("wechat says paid, but not how much or under which number")
    try:
        paid_at = rfc3339_ms(transaction.success_time)
    except ValueError as error:
        raise GatewayUnavailable(f"wechat says paid, but not when: {error}") from error
    return Payment(
        channel="tecent-pay",
        order_id=transaction.out_trade_no,
        transaction_id=transaction.transaction_id,
        amount=transaction.amount.total,
        currency=transaction.amount.currency,
        merchant=transaction.mchid,
        app=transaction.appid,
        paid_at=paid_at,
    )


def _refund(refund: _Refund) -> RefundStanding:
    state = _REFUND_STATES.get(refund.status or refund.refund_status, "unknown")
    return RefundStanding(refund.out_refund_no, state, refund.amount.refund)


def _bill_lines(text: str) -> Iterator[BillLine]:
    lines = text.removeprefix("\ufeff").splitlines()
    names = lines[0].split(",") if lines else []
    for line in lines[1:]:
        if not line.startswith("`"):
            return  # the sums begin
        # Only the backtick makes a comma a separator: a product's name may have commas.
        values = (value.strip() for value in line[1:].split(",`"))
        cells = dict(zip(names, values, strict=True))
        if cells["交易状态"] == "SUCCESS":
            yield _bill_line(cells, "payment", cells["订单金额"], None)
        elif cells["交易状态"] == "REFUND":
            yield _bill_line(cells, "refund", cells["申请退款金额"], cells["商户退款单号"])


def _bill_line(
    cells: Mapping[str, str], kind: Literal["payment", "refund"], yuan: str, refund_id: str | None
) -> BillLine:
    return BillLine(
        order_id=cells["商户订单号"],
        transaction_id=cells["微信订单号"],
        kind=kind,
        amount=fen(yuan.removeprefix("-")),
        refund_id=refund_id,
    )


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise GatewayUnavailable(f"wechat's answer cannot be read: {error}") from error
