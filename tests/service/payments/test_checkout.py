"""Orders cost what the table says; codes are never used beyond their limits; ends are found out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.shop import MONTH, START_MS, TOKENS, Shop, payment, request, unavailable
from vision.errors import IdempotencyConflict, InvalidRequest, VisionError
from vision.payments.errors import (
    GatewayRefused,
    GatewayUnavailable,
    OrderNotPayable,
    PromoCodeRefused,
    UnknownOrder,
)
from vision.payments.order import Status
from vision.payments.product import PromoCode


async def both(shop: Shop, url: str, attempts: list[Any]) -> list[Any]:
    """Orders made at once through two pools of connections: each order, or its error."""
    other = Shop(url)
    made = await asyncio.gather(
        *(
            each.checkout.create(attempt)
            for each, attempt in zip((shop, other) * len(attempts), attempts, strict=False)
        ),
        return_exceptions=True,
    )
    await other.close()
    return list(made)


@pytest.mark.gen_test
async def test_an_order_is_written_and_placed_with_its_price(shop: Shop) -> None:
    order = await shop.order()

    assert order == await shop.checkout.find(order.order_id)
    assert order.code_url == f"https://pay.example/{order.order_id}"
    assert len(order.order_id) == 32
    assert int(order.order_id, 16) >= 0
    assert [(each.order_id, each.amount) for each in shop.gateway.placed] == [
        (order.order_id, 1200)
    ]


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"price": 99}, "price: expected 100 fen (1.00 yuan), not 99"),
        ({"total_price": 1}, "totalPrice: expected 1200 fen (12.00 yuan), not 1"),
        ({"amount": 1}, "amount: expected 1200 fen (12.00 yuan), not 1"),
        ({"product_id": "year"}, 'productId: no product "year" is sold'),
        ({"product_line": "other"}, 'productLine: the product belongs to the line "line"'),
        ({"promo_code": "NONE"}, 'promoCode: there is no code "NONE"'),
        ({"promo_code": "HALF"}, "amount: expected 600 fen (6.00 yuan), not 1200"),
        ({"uid": "u1 "}, "uid: white space at the beginning or the end"),
    ],
    ids=lambda value: value.split(":")[0] if isinstance(value, str) else "",
)
async def test_what_the_client_sends_must_agree_or_nothing_is_written(
    shop: Shop, wrong: dict[str, Any], message: str
) -> None:
    await shop.sell(promo_codes=[PromoCode("HALF", "percentage", 50)])

    with pytest.raises(VisionError) as refused:
        await shop.order(**wrong)

    assert refused.value.message == message
    assert await shop.count("orders") == 0
    assert await shop.column("promo_codes", "used") == [0]


@pytest.mark.gen_test
async def test_a_code_is_never_used_beyond_its_limit_by_a_hundred_orders_at_once(
    shop: Shop, database_url: str
) -> None:
    await shop.sell(promo_codes=[PromoCode("TEN", "fixed", 200, total_limit=10)])
    attempts = [request(uid=f"u{n}", promo_code="TEN", amount=1000) for n in range(100)]

    made = await both(shop, database_url, attempts)

    refused = [each for each in made if isinstance(each, PromoCodeRefused)]
    assert (len(made), len(refused)) == (100, 90), made
    assert await shop.count("orders") == await shop.count("promo_uses") == 10
    assert await shop.column("promo_codes", "used") == [10]


@pytest.mark.gen_test
async def test_one_user_cannot_use_a_code_beyond_the_limit_of_one_user(
    shop: Shop, database_url: str
) -> None:
    await shop.sell(promo_codes=[PromoCode("ONCE", "fixed", 200, per_user_limit=1)])
    attempts = [request(uid=f"u{n % 2}", promo_code="ONCE", amount=1000) for n in range(20)]

    made = await both(shop, database_url, attempts)

    assert len([each for each in made if isinstance(each, PromoCodeRefused)]) == 18
    assert sorted(await shop.column("promo_uses", "uid")) == ["u0", "u1"]


@pytest.mark.gen_test
async def test_an_order_that_closes_unpaid_gives_its_code_back_once(shop: Shop) -> None:
    await shop.sell(promo_codes=[PromoCode("ONE", "fixed", 200, total_limit=1)])
    order = await shop.order(promo_code="ONE", amount=1000)
    shop.now = order.expires_at

    await asyncio.gather(*(shop.checkout.look(order, "reconcile") for _ in range(5)))

    assert await shop.column("promo_codes", "used") == [0]
    assert (await shop.order(uid="u2", promo_code="ONE", amount=1000)).amount == 1000


@pytest.mark.gen_test
async def test_the_same_key_makes_one_order_however_often_at_once(
    shop: Shop, database_url: str
) -> None:
    other = Shop(database_url)

    orders = await asyncio.gather(
        *(each.checkout.create(request(), "key") for each in (shop, other) * 10)
    )

    assert len({order.order_id for order in orders}) == await shop.count("orders") == 1
    with pytest.raises(IdempotencyConflict):
        await shop.checkout.create(request(TOKENS), "key")
    assert (await shop.checkout.create(request(), "another")).order_id != orders[0].order_id
    await other.close()


@pytest.mark.gen_test
async def test_an_order_whose_gateway_did_not_answer_is_placed_when_it_is_repeated(
    shop: Shop,
) -> None:
    shop.gateway.before = unavailable("place")
    with pytest.raises(GatewayUnavailable):
        await shop.checkout.create(request(), "key")
    shop.gateway.before = lambda _: None

    order = await shop.checkout.create(request(), "key")

    assert order.code_url
    assert await shop.count("orders") == 1


@pytest.mark.gen_test
async def test_an_order_that_the_gateway_refused_is_closed_without_waiting(shop: Shop) -> None:
    def refuse(name: str) -> None:
        if name == "place":
            raise GatewayRefused("no", gateway_code="NO")

    shop.gateway.before = refuse
    with pytest.raises(GatewayRefused):
        await shop.checkout.create(request(), "key")

    (order,) = await shop.payments.reconciler.due()
    await shop.payments.reconciler.check([order])

    assert (await shop.checkout.find(order.order_id)).status is Status.CLOSED
    with pytest.raises(OrderNotPayable, match="the order is closed"):
        await shop.checkout.create(request(), "key")


@pytest.mark.gen_test
async def test_an_expired_order_that_turns_out_to_be_paid_is_settled_not_closed(
    shop: Shop,
) -> None:
    order = await shop.order()
    shop.now = order.expires_at

    def pay_in_between(name: str) -> None:
        if name == "close":
            shop.gateway.paid[order.order_id] = payment(order)

    shop.gateway.before = pay_in_between
    await shop.checkout.look(order, "reconcile")

    assert (await shop.checkout.find(order.order_id)).status is Status.PAID
    assert shop.gateway.closed == []


@pytest.mark.gen_test
async def test_an_order_is_not_closed_here_while_the_gateway_does_not_answer(shop: Shop) -> None:
    order = await shop.order()
    shop.now = order.expires_at
    shop.gateway.before = unavailable("close")

    with pytest.raises(GatewayUnavailable):
        await shop.checkout.look(order, "reconcile")

    assert (await shop.checkout.find(order.order_id)).status is Status.UNPAID


@pytest.mark.gen_test
async def test_a_product_that_changes_changes_no_order(shop: Shop) -> None:
    order = await shop.order(TOKENS)
    dearer = TOKENS.__class__("tokens", "line", "Tokens", 900, 900, tokens=1)
    await shop.sell([dearer])

    await shop.settler.settle(payment(order), "notification")

    (entitlement,) = await shop.checkout.entitlements("u1")
    assert entitlement.tokens == 1000


@pytest.mark.gen_test
async def test_pages_are_newest_first_and_say_how_many_there_are(shop: Shop) -> None:
    orders = []
    for number in range(5):
        shop.now = START_MS + number
        orders.append(await shop.order(MONTH if number % 2 else TOKENS, uid="u1"))
    await shop.order(uid="u2")

    first = await shop.checkout.page(1, 2, "u1", "line")
    last = await shop.checkout.page(3, 2, "u1", "line")

    assert (first.total, last.total) == (5, 5)
    assert [order.order_id for order in first.orders] == [
        orders[4].order_id,
        orders[3].order_id,
    ]
    assert [order.order_id for order in last.orders] == [orders[0].order_id]
    assert (await shop.checkout.page(1, 100)).total == 6
    assert (await shop.checkout.page(1, 10, "u3")).orders == []


@pytest.mark.gen_test
async def test_an_order_that_is_not_there_is_unknown(shop: Shop) -> None:
    with pytest.raises(UnknownOrder, match='orderId: there is no order "none"'):
        await shop.checkout.find("none")
    with pytest.raises(InvalidRequest):
        await shop.order(promo_code=" x")
