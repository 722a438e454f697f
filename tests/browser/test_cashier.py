"""The sandbox's cashier page: an order is paid in a browser, and the API says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.processes import ServerProcess
from tests.service.calling import call

DAY = {"type": "alipay", "price": 100, "totalPrice": 100, "amount": 100}
DAY |= {"productId": "demo-day", "productLine": "demo", "promoCode": ""}


def place(server: ServerProcess, uid: str) -> dict[str, Any]:
    return json.loads(call(server, "/api/payment/order/create", DAY | {"uid": uid})[1])["data"]


def status(server: ServerProcess, order_id: str) -> int:
    path = f"/api/payment/order/query-by-id?orderId={order_id}"
    return json.loads(call(server, path)[1])["data"]["status"]


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


def test_paying_in_the_browser_pays_the_order(server: ServerProcess, page: Page) -> None:
    order = place(server, "payer")
    page.goto(order["url"])
    expect(page.locator("#amount")).to_have_text("¥ 1.00")

    page.get_by_role("button", name="Pay", exact=True).click()

    expect(page.locator("#state")).to_have_text("paid")
    expect(page.get_by_role("button", name="Refuse")).to_be_disabled()
    assert status(server, order["orderId"]) == 1


def test_refusing_leaves_the_order_open(server: ServerProcess, page: Page) -> None:
    order = place(server, "refuser")
    page.goto(order["url"])

    page.get_by_role("button", name="Refuse").click()

    expect(page.locator("#state")).to_have_text("refused once")
    assert status(server, order["orderId"]) == 0


def test_an_order_that_is_not_there_says_so(server: ServerProcess, page: Page) -> None:
    page.goto(f"{server.base_url}/cashier.html?channel=alipay&orderId=none")

    expect(page.locator("#problem")).to_contain_text("no order with this number")
