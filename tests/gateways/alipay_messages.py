"""What the simulator of Alipay writes: amounts, times, certificates' numbers, bills.

The law: as its documentation describes them, computed field by field, independent of the server's
code.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import time
import zipfile
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from tests.gateways.simulator import Order

BEIJING = datetime.timezone(datetime.timedelta(hours=8))
COLUMNS = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,订单金额（元）,商家实收（元）,"
    "退款批次号/请求号,备注"
)


def yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"


def clock(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, BEIJING).strftime("%Y-%m-%d %H:%M:%S")


def moment(text: str) -> float:
    """Seconds since the epoch of what `clock` writes. Raises ValueError."""
    return datetime.datetime.strptime(f"{text} +0800", "%Y-%m-%d %H:%M:%S %z").timestamp()


def certificate_sn(certificate: x509.Certificate) -> str:
    """MD5 of `CN=..,OU=..,O=..,C=..` of the issuer and the decimal serial number."""
    fields = (
        ("CN", NameOID.COMMON_NAME),
        ("OU", NameOID.ORGANIZATIONAL_UNIT_NAME),
        ("O", NameOID.ORGANIZATION_NAME),
        ("C", NameOID.COUNTRY_NAME),
    )
    issuer = certificate.issuer
    name = ",".join(
        f"{short}={issuer.get_attributes_for_oid(oid)[0].value!s}" for short, oid in fields
    )
    return hashlib.md5(f"{name}{certificate.serial_number}".encode()).hexdigest()


def root_sn(certificates: Sequence[x509.Certificate]) -> str:
    """The numbers of those that are signed with RSA."""
    return "_".join(certificate_sn(each) for each in certificates)


def wrong(variant: str, order: Order) -> dict[str, str]:
    """What differs from the notification of the payment."""
    if variant.startswith("refund:"):
        total = sum(order.refunds.values())
        return {
            "refund_fee": yuan(total),
            "gmt_refund": clock(time.time()) + ".123",
            "out_biz_no": variant.removeprefix("refund:"),
            "trade_status": "TRADE_CLOSED" if total == order.amount else "TRADE_SUCCESS",
        }
    return {
        "wrong_amount": {"total_amount": yuan(order.amount - 1)},
        "wrong_merchant": {"seller_id": "2088102146225136"},
        "other_app": {"app_id": "2021000000000002"},
        "exponent": {"total_amount": "1e2"},
        "finished": {"trade_status": "TRADE_FINISHED"},
        "closed": {"trade_status": "TRADE_CLOSED"},
    }.get(variant, {})


def bill_file(orders: Iterable[Order]) -> bytes:
    """A zip with the details and the sums, as Alipay packs them."""
    lines = ["#支付宝业务明细查询", "#账号：[20881022]", "#---业务明细列表---", COLUMNS]
    for order in orders:
        if order.transaction:
            lines.append(_row(order, "交易", order.amount, ""))
            lines += [_row(order, "退款", -n, ref) for ref, n in order.refunds.items()]
    lines += ["#---业务明细列表结束---", "#交易合计：1笔"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("20881022_业务明细.csv", "\r\n".join(lines).encode("gbk"))
        sums = "#汇总\r\n门店编号,门店名称,交易订单总笔数\r\n合计,,1\r\n"
        archive.writestr("20881022_业务明细(汇总).csv", sums.encode("gbk"))
    return packed.getvalue()


def _row(order: Order, kind: str, amount: int, refund_id: str) -> str:
    shown = f"-{yuan(-amount)}" if amount < 0 else yuan(amount)
    times = "2026-01-01 00:00:00,2026-01-01 00:00:01"
    return (
        f"{order.transaction}\t,{order.number}\t,{kind},a,b,{times},{shown},{shown},{refund_id} ,"
    )
