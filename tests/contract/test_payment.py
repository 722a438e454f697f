"""创建订单, 单个订单查询, 多订单查询, 接受订单回调: payments, on the sandbox."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.contract.conftest import KEY, Api
from vision.settings import Settings

CREATE = "/api/payment/order/create"
DAY = {
    "type": "alipay",
    "price": 100,
    "totalPrice": 100,
    "uid": "u1",
    "amount": 100,
    "productId": "demo-day",
    "promoCode": "",
    "productLine": "demo",
}
pytestmark = pytest.mark.gen_test


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, payment_keys=("pay",), admin_keys=("boss",))


async def create(api: Api, **changes: Any) -> dict[str, Any]:
    response = await api.post(CREATE, DAY | changes)
    assert response.code == 200, response.body
    return json.loads(response.body)["data"]


async def act(api: Api, order_id: str, action: str, channel: str = "alipay") -> int:
    """What the payer does on the sandbox's cashier page."""
    path = f"/api/payment/sandbox?channel={channel}&orderId={order_id}&action={action}"
    return (await api.post(path, "")).code


async def order(api: Api, order_id: str) -> dict[str, Any]:
    response = await api.get(f"/api/payment/order/query-by-id?orderId={order_id}")
    return json.loads(response.body)["data"]


async def notify(api: Api, **body: Any) -> tuple[int, dict[str, Any]]:
    response = await api.post("/api/payment/notify", body, Authorization="Vision pay")
    return response.code, json.loads(response.body)


async def entitlements(api: Api, uid: str = "u1") -> list[dict[str, Any]]:
    response = await api.get(f"/api/payment/entitlements?uid={uid}")
    return json.loads(response.body)["data"]


@pytest.mark.parametrize("channel", ["tecent-pay", "alipay"])
async def test_an_order_is_answered_with_the_url_of_its_code(api: Api, channel: str) -> None:
    response = await api.post(CREATE, DAY | {"type": channel})

    answer = json.loads(response.body)
    assert (response.code, answer["statusCode"]) == (200, 200)
    assert answer["data"]["url"].startswith("http")
    assert len(answer["data"]["orderId"]) == 32


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"price": 99}, "price", "100"),
        ({"totalPrice": 1}, "totalPrice", "100"),
        ({"amount": 1}, "amount", "100"),
        ({"amount": 1.5}, "amount", "integer"),
        ({"productId": "none"}, "productId", "none"),
        ({"productLine": "other"}, "productLine", "demo"),
        ({"promoCode": "NO"}, "promoCode", "NO"),
        ({"type": "cash"}, "type", "tecent-pay"),
        ({"uid": ""}, "uid", "empty"),
        ({"colour": 1}, "colour", "no such field"),
    ],
)
async def test_what_does_not_agree_is_refused_with_the_field_and_what_was_expected(
    api: Api, changes: dict[str, Any], path: str, words: str
) -> None:
    response = await api.post(CREATE, DAY | changes)

    answer = json.loads(response.body)
    assert response.code == 400
    assert answer["error"]["path"] == path
    assert words in answer["message"]


async def test_an_idempotency_key_makes_one_order_of_many_requests(api: Api) -> None:
    headers = {"Idempotency-Key": "k1"}

    first = await api.post(CREATE, DAY, **headers)
    second = await api.post(CREATE, DAY, **headers)
    other = await api.post(CREATE, DAY | {"uid": "u2"}, **headers)

    assert json.loads(first.body)["data"] == json.loads(second.body)["data"]
    assert other.code == 409


@pytest.mark.parametrize("channel", ["tecent-pay", "alipay"])
async def test_a_paid_order_says_so_and_grants_what_was_bought(api: Api, channel: str) -> None:
    made = await create(api, type=channel)

    assert await act(api, made["orderId"], "pay", channel) == 200

    found = await order(api, made["orderId"])
    documented = {"status": 1, "type": channel, "price": 100, "totalPrice": 100, "uid": "u1"}
    documented |= {"amount": 100, "productId": "demo-day", "promoCode": "", "productLine": "demo"}
    assert found.items() >= documented.items()
    (entitled,) = await entitlements(api)
    assert (entitled["productLine"], entitled["active"]) == ("demo", True)


async def test_a_refused_payment_leaves_the_order_unpaid(api: Api) -> None:
    made = await create(api)

    await act(api, made["orderId"], "decline")

    assert (await order(api, made["orderId"]))["status"] == 0
    assert await entitlements(api) == []


async def test_orders_are_listed_newest_first_with_the_documented_fields(api: Api) -> None:
    ids = [(await create(api, uid="many"))["orderId"] for _ in range(3)]
    await create(api, uid="another")

    path = "/api/payment/order/query?page=1&pageSize=2&uid=many&productLine=demo"
    answer = json.loads((await api.get(path)).body)

    assert answer["statusCode"] == 200
    assert [each["orderId"] for each in answer["data"]] == ids[:0:-1]
    assert answer["total"] == 3
    fields = {"status", "id", "uid", "orderId", "price", "totalPrice", "amount", "promoCode"}
    assert fields | {"productId", "updateTime", "createTime"} <= set(answer["data"][0])
    assert answer["data"][0]["createTime"].endswith("Z")


@pytest.mark.parametrize("query", ["page=0", "pageSize=0", "pageSize=101", "page=x"])
async def test_a_page_out_of_range_is_refused(api: Api, query: str) -> None:
    response = await api.get(f"/api/payment/order/query?{query}")

    assert response.code == 400
    assert json.loads(response.body)["error"]["path"] == query.split("=", maxsplit=1)[0]


async def test_an_unknown_order_is_404(api: Api) -> None:
    response = await api.get("/api/payment/order/query-by-id?orderId=nope")

    assert response.code == 404
    assert json.loads(response.body)["error"]["code"] == "unknown_order"


async def test_the_code_of_an_unpaid_order_can_be_had_as_svg(api: Api) -> None:
    made = await create(api)
    path = f"/api/payment/order/qrcode?orderId={made['orderId']}"

    open_ = await api.get(path)
    await act(api, made["orderId"], "pay")
    paid = await api.get(path)

    assert open_.headers["Content-Type"] == "image/svg+xml"
    assert b"<svg" in open_.body
    assert paid.code == 409


async def test_an_internal_caller_settles_the_one_order_that_matches(api: Api) -> None:
    made = await create(api)

    status, answer = await notify(api, uid="u1", productId="demo-day", amount=100)
    again, _ = await notify(
        api, uid="u1", productId="demo-day", amount=100, orderId=made["orderId"]
    )

    assert (status, again) == (200, 200)
    assert answer["data"]["orderId"] == made["orderId"]
    assert (await order(api, made["orderId"]))["status"] == 1
    (entitled,) = await entitlements(api)
    assert entitled["active"]


async def test_an_internal_caller_hears_what_does_not_match(api: Api) -> None:
    none = await notify(api, uid="nobody", productId="demo-day", amount=100)
    ids = [(await create(api, uid="two"))["orderId"] for _ in range(2)]
    several = await notify(api, uid="two", productId="demo-day", amount=100)
    wrong = await notify(api, uid="two", productId="demo-day", amount=99, orderId=ids[0])

    assert (none[0], none[1]["error"]["code"]) == (404, "unknown_order")
    assert (several[0], several[1]["error"]["code"]) == (409, "ambiguous_order")
    assert (wrong[0], wrong[1]["error"]["code"]) == (400, "price_mismatch")
    cases = await api.get("/api/payment/cases", Authorization="Vision boss")
    assert ids[0] in {case["orderId"] for case in json.loads(cases.body)["data"]}
    assert await entitlements(api, "two") == []


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/api/payment/notify", "chat"),
        ("/api/payment/notify", "boss"),
        ("/api/payment/refund", "chat"),
        ("/api/payment/refund", "pay"),
        ("/api/payment/products", "chat"),
        (CREATE, "pay"),
    ],
)
async def test_a_key_of_another_role_is_refused(api: Api, path: str, key: str) -> None:
    response = await api.post(path, {}, Authorization=f"Vision {key}")

    assert response.code == 403
    assert json.loads(response.body)["error"]["code"] == "forbidden"


async def test_a_refund_gives_back_in_parts_and_never_more_than_was_paid(api: Api) -> None:
    order_id = (await create(api))["orderId"]
    await act(api, order_id, "pay")

    async def refund(**body: Any) -> tuple[int, dict[str, Any]]:
        response = await api.post(
            "/api/payment/refund", {"orderId": order_id} | body, Authorization="Vision boss"
        )
        return response.code, json.loads(response.body)

    part = await refund(amount=40, refundId="r1")
    again = await refund(amount=40, refundId="r1")
    too_much = await refund(amount=61)
    rest = await refund()

    assert part[1]["data"] == again[1]["data"]
    assert (too_much[0], too_much[1]["error"]["code"]) == (409, "refund_refused")
    assert rest[1]["data"]["amount"] == 60
    found = await order(api, order_id)
    assert (found["status"], found["refunded"]) == (2, 100)
    assert not any(each["active"] for each in await entitlements(api))


@pytest.mark.parametrize("channel", ["wechat", "alipay"])
@pytest.mark.parametrize("body", [b"", b"{}", b"sign=x&sign_type=RSA", b"\xff" * 10, b"[" * 9999])
async def test_a_callback_that_no_gateway_has_signed_is_refused(
    api: Api, base_url: str, channel: str, body: bytes
) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{base_url}/api/payment/notify/{channel}"
        async with session.post(url, data=body) as response:
            text = await response.read()

    assert 400 <= response.status < 500 or (channel == "alipay" and text != b"success")
    assert text != b"success"


async def test_products_are_loaded_by_an_admin_and_a_code_takes_its_part_off(api: Api) -> None:
    goods = {
        "products": {"week": {"product_line": "chat", "name": "A week", "price": 700, "days": 7}},
        "promo_codes": {"HALF": {"kind": "percentage", "value": 50, "total_limit": 1}},
    }
    loaded = await api.post("/api/payment/products", goods, Authorization="Vision boss")
    week = {"productId": "week", "productLine": "chat", "price": 700, "totalPrice": 700}

    listed = json.loads((await api.get("/api/payment/products")).body)["data"]
    code = json.loads((await api.get("/api/payment/promo-codes?code=HALF")).body)["data"]
    first = await api.post(CREATE, DAY | week | {"amount": 350, "promoCode": "HALF"})
    second = await api.post(CREATE, DAY | week | {"amount": 350, "promoCode": "HALF"})

    assert json.loads(loaded.body)["data"] == {"products": 1, "promoCodes": 1}
    assert "week" in {product["productId"] for product in listed}
    assert (code["kind"], code["value"]) == ("percentage", 50)
    assert first.code == 200, first.body
    assert json.loads(second.body)["error"]["code"] == "promo_code_refused"


async def test_a_socket_hears_when_an_order_of_its_buyer_changes(api: Api, base_url: str) -> None:
    order_id = (await create(api))["orderId"]
    url = base_url.replace("http", "ws") + "/api/completion/ws"
    async with aiohttp.ClientSession(headers=KEY) as session:
        async with session.ws_connect(url) as socket:
            await socket.send_json({"type": "watchOrders", "uid": "u1", "requestId": 1})
            watching = await socket.receive_json()
            await act(api, order_id, "pay")
            news = await socket.receive_json(timeout=10)

    assert (watching["type"], watching["requestId"]) == ("watching", 1)
    assert (news["type"], news["orderId"], news["status"]) == ("order", order_id, 1)
