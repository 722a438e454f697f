"""The tables of payments, as this server uses them; `sql/versions` has how they came to be.

The law: money is whole fen, times are ms since the epoch in UTC, and both are BIGINT. Texts that
name something compare byte for byte on every database. What must happen once has a unique key:
a gateway's transaction, a refund's number, an order's grant, a client's idempotency key.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

# How long the texts may be, in characters; what clients send is held against these.
ID: Final = 32
UID: Final = 128
NAME: Final = 64
LABEL: Final = 256
EXT: Final = 4096
NUMBER: Final = 64  # a gateway's: WeChat Pay has 32 at most, Alipay 64

metadata = MetaData()

# SQLite gives out numbers by itself only for INTEGER, which has 64 bits there.
_BIG = BigInteger().with_variant(Integer, "sqlite")


class Raw(TypeDecorator[bytes]):
    """Bytes, each written as the character of its number, so that a person can read most of them.

    aiomysql 0.3 cannot write a BLOB: it calls a function that PyMySQL 1.2 no longer has (PyMySQL
    issue 1274), and writes a bytearray as its repr.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """TEXT of MySQL ends at 64 KiB, and half of the characters take two bytes."""
        return MEDIUMTEXT() if dialect.name in {"mysql", "mariadb"} else Text()

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.decode("latin-1")

    def process_result_value(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else value.encode("latin-1")


def _table(name: str, *parts: Any) -> Table:
    return Table(
        name,
        metadata,
        *parts,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        # Case and accents count, as they do in SQLite: "A" and "a" are two users.
        mysql_collate="utf8mb4_bin",
    )


def _text(name: str, length: int, **more: Any) -> Column[Any]:
    return Column(name, String(length), nullable=False, **more)


def _number(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=False)


def _optional(name: str) -> Column[Any]:
    return Column(name, BigInteger, nullable=True)


def _key() -> Column[Any]:
    return Column("id", _BIG, primary_key=True, autoincrement=True)


def _flag(name: str) -> Column[Any]:
    return Column(name, Boolean, nullable=False)


products = _table(
    "products",
    _text("product_id", NAME, primary_key=True),
    _text("product_line", NAME),
    _text("name", LABEL),
    _number("price"),
    _number("total_price"),
    _number("days"),
    _number("tokens"),
    _flag("active"),
    _number("updated_at"),
)

promo_codes = _table(
    "promo_codes",
    _text("code", NAME, primary_key=True),
    _text("kind", 16),
    _number("value"),
    _number("starts_at"),
    _optional("ends_at"),
    _optional("total_limit"),
    _optional("per_user_limit"),
    Column("product_id", String(NAME), nullable=True),
    _flag("active"),
    _number("used"),
    _number("updated_at"),
)

# One row per order that holds a code or has used it; gone when the order closes unpaid.
promo_uses = _table(
    "promo_uses",
    _text("order_id", ID, primary_key=True),
    _text("code", NAME),
    _text("uid", UID),
    _number("created_at"),
    Index("promo_uses_by_user", "code", "uid"),
)

orders = _table(
    "orders",
    _key(),
    _text("order_id", ID, unique=True),
    _text("uid", UID),
    _text("product_id", NAME),
    _text("product_line", NAME),
    _text("channel", 16),
    _number("price"),
    _number("total_price"),
    _number("amount"),
    _text("promo_code", NAME),
    Column("ext", Text, nullable=False),
    _text("description", LABEL),
    _number("days"),
    _number("tokens"),
    _text("merchant", NAME),
    _text("app", NAME),
    Column("status", SmallInteger, nullable=False),
    _number("refunded"),
    _text("transaction_id", NUMBER),
    Column("code_url", Text, nullable=False),
    Column("idempotency_key", String(64), nullable=True, unique=True),
    _text("fingerprint", 64),
    _number("checks"),
    _number("next_check_at"),
    _number("expires_at"),
    _number("created_at"),
    _number("updated_at"),
    Index("orders_by_user", "uid", "product_line", "created_at"),
    Index("orders_by_line", "product_line", "created_at"),
    Index("orders_by_product", "uid", "product_id", "status"),
    Index("orders_to_check", "status", "next_check_at"),
)

payments = _table(
    "payments",
    _key(),
    _text("channel", 16),
    _text("transaction_id", NUMBER),
    _text("order_id", NAME),
    _number("amount"),
    _text("currency", 16),
    _text("merchant", NAME),
    _text("app", NAME),
    _number("paid_at"),
    _text("source", 16),
    # "" when it has paid its order; else why not.
    _text("refusal", 32),
    # The sum of all refunds of it that have not failed: what is promised away.
    _number("reserved"),
    _number("created_at"),
    UniqueConstraint("channel", "transaction_id", name="payments_once"),
    Index("payments_by_order", "order_id"),
    Index("payments_by_day", "channel", "paid_at"),
)

refunds = _table(
    "refunds",
    _key(),
    _text("refund_id", NUMBER, unique=True),
    _text("order_id", ID),
    _text("channel", 16),
    _text("transaction_id", NUMBER),
    _number("amount"),
    _number("total"),
    _text("reason", LABEL),
    _text("state", 16),
    _number("checks"),
    _number("next_check_at"),
    _number("created_at"),
    _number("updated_at"),
    Index("refunds_by_order", "order_id"),
    Index("refunds_to_check", "state", "next_check_at"),
)

notifications = _table(
    "notifications",
    _key(),
    _text("channel", 16),
    Column("headers", Text, nullable=False),
    Column("body", Raw, nullable=False),
    Column("verdict", Text, nullable=False),
    _flag("verified"),
    _number("received_at"),
    Index("notifications_to_forget", "verified", "received_at"),
)

entitlements = _table(
    "entitlements",
    _text("uid", UID, primary_key=True),
    _text("product_line", NAME, primary_key=True),
    _number("ends_at"),
    _number("tokens"),
    _number("tokens_used"),
    _number("updated_at"),
)

grants = _table(
    "grants",
    _text("order_id", ID, primary_key=True),
    _text("uid", UID),
    _text("product_line", NAME),
    _number("access_ms"),
    _number("tokens"),
    _number("revoked_ms"),
    _number("revoked_tokens"),
    _number("granted_at"),
    Index("grants_by_user", "uid", "product_line"),
)

# What a person has to look at. The subject keeps one case from being opened twice.
cases = _table(
    "cases",
    _key(),
    _text("kind", 32),
    _text("subject", 160),
    _text("order_id", NAME),
    Column("detail", Text, nullable=False),
    _number("created_at"),
    UniqueConstraint("kind", "subject", name="cases_once"),
)

# Bills that have been compared, one row per gateway and day (UTC+8).
bills = _table(
    "bills",
    _text("channel", 16, primary_key=True),
    _text("day", 10, primary_key=True),
    _number("differences"),
    _number("compared_at"),
)

locks = _table(
    "locks",
    _text("name", NAME, primary_key=True),
    _text("holder", NAME),
    _number("expires_at"),
)
