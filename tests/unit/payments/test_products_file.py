"""A products file is read as a whole, and what is wrong is said in one line with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from vision.errors import SettingError
from vision.payments import products_file
from vision.payments.product import Product, PromoCode
from vision.payments.products_file import read_goods

PRODUCT = '[products.a]\nproduct_line = "l"\nname = "A"\nprice = 100\ndays = 1\n'
CODE = '[promo_codes.C]\nkind = "percentage"\nvalue = 20\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "goods.toml"
    path.write_text(text)
    return path


def test_the_example_at_the_top_of_the_module_is_read(tmp_path: Path) -> None:
    example = (products_file.__doc__ or "").split("\n\n", 2)[2].replace("\n    ", "\n").lstrip()

    goods = read_goods(write(tmp_path, example))

    assert goods.products == [
        Product("month", "writer", "A month of writing", 1900, 1900, days=30, tokens=100_000)
    ]
    assert goods.promo_codes == [
        PromoCode(
            "SPRING",
            "percentage",
            20,
            starts_at=1709222400000,
            ends_at=1717171200000,
            total_limit=1000,
            per_user_limit=1,
            product_id="month",
        )
    ]


def test_a_total_that_is_not_given_is_the_price(tmp_path: Path) -> None:
    (product,) = read_goods(write(tmp_path, PRODUCT)).products
    assert (product.price, product.total_price) == (100, 100)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (PRODUCT.replace("100", "0"), "products.a.price"),
        (PRODUCT.replace("100", "9.99"), "products.a.price"),
        (PRODUCT.replace("days = 1", "days = 0"), "products.a: grants nothing"),
        (PRODUCT.replace("days = 1", ""), "products.a: grants nothing"),
        (PRODUCT + "prise = 1\n", "products.a"),
        (CODE.replace("20", "101"), "promo_codes.C.value"),
        (CODE.replace('"percentage"', '"half"'), "promo_codes.C.kind"),
        (CODE + "ends_at = 2024-06-01T00:00:00\n", "promo_codes.C.ends_at"),
        (CODE + "ends_at = 2024-06-01\n", "promo_codes.C.ends_at"),
        (CODE + "total_limit = inf\n", "promo_codes.C.total_limit"),
        (CODE.replace("C]", '" C"]'), "promo_codes"),
        ("[orders]\n", "orders"),
        ("=", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, place: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(SettingError) as refused:
        read_goods(path)

    assert refused.value.message.startswith(f"{path}: ")
    assert place in refused.value.message
    assert "\n" not in refused.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        read_goods(tmp_path / "none.toml")
