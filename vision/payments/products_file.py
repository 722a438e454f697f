"""Products and promotion codes in a TOML file.

The law: a file is loaded as a whole or not at all, and what is wrong in it is said in one line that
names the file and the place. Money is in fen, as whole numbers; times have their offset from UTC,
since a code that ends "at midnight" ends at one moment for everybody.

    [products.month]
    product_line = "writer"
    name = "A month of writing"
    price = 1900            # of one unit
    total_price = 1900      # of the product; price when not given
    days = 30               # of access, or
    tokens = 100000         # that it grants, or both

    [promo_codes.SPRING]
    kind = "percentage"     # or "fixed"
    value = 20              # percent, or fen
    starts_at = 2024-03-01T00:00:00+08:00
    ends_at = 2024-06-01T00:00:00+08:00
    total_limit = 1000
    per_user_limit = 1
    product_id = "month"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from math import isfinite
from pathlib import Path
from typing import Any, Final

import jsonschema_rs

from vision.errors import SettingError
from vision.payments.moments import rfc3339_ms
from vision.payments.product import Product, PromoCode

SCHEMA: Final = Path(__file__).parents[2] / "schemas" / "products.schema.json"


@dataclass(frozen=True, slots=True)
class Goods:
    """What a file has."""

    products: Sequence[Product]
    promo_codes: Sequence[PromoCode]


def read_goods(path: Path) -> Goods:
    """The products and promotion codes of a file. Raises SettingError, in one line."""
    document = _read(path)
    validator = jsonschema_rs.validator_for(SCHEMA.read_text("utf-8"), validate_formats=True)
    for wrong in validator.iter_errors(document):
        place = ".".join(str(step) for step in wrong.instance_path)
        nothing = "anyOf" in wrong.schema_path  # the one alternative: days, or tokens
        why = "grants nothing: give it days or tokens" if nothing else wrong.message
        raise SettingError(": ".join(part for part in (str(path), place, why) if part))
    return goods_of(document)


def goods_of(document: Mapping[str, Any]) -> Goods:
    """What a document has that is valid by the schema; times are texts (RFC 3339)."""
    products = document.get("products", {})
    codes = document.get("promo_codes", {})
    return Goods(
        [_product(product_id, table) for product_id, table in products.items()],
        [_promo_code(code, table) for code, table in codes.items()],
    )


def _product(product_id: str, table: Mapping[str, Any]) -> Product:
    return Product(product_id=product_id, **{"total_price": table["price"], **table})


def _promo_code(code: str, table: Mapping[str, Any]) -> PromoCode:
    times = {name: rfc3339_ms(table[name]) for name in ("starts_at", "ends_at") if name in table}
    return PromoCode(code=code, **{**table, **times})


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path}: is not UTF-8: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:  # its message ends with the line and the column
        raise SettingError(f"{path}: is not TOML: {error}") from error
    found: Mapping[str, Any] = _json(document)
    return found


def _json(value: Any) -> Any:
    """The value in the words of JSON, for the schema: times and odd numbers become texts."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return value
