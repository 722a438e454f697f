"""Money end to end: a real server, gateways over real sockets, notifications that misbehave.

The law: whatever a gateway sends, an order is paid and granted once, or not at all.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import keys
from tests.gateways.process import GatewayProcess
from tests.processes import ROOT, ServerProcess
from tests.service.calling import call
from tests.valkeys import free_port, until

DAY = {"price": 100, "totalPrice": 100, "amount": 100, "promoCode": ""}
DAY |= {"productId": "demo-day", "productLine": "demo"}
CHANNELS = ["tecent-pay", "alipay"]
COMMAND = [sys.executable, "-m", "vision", "reconcile"]


@dataclass(frozen=True)
class Shop:
    """A server, and the gateways that it is a merchant of."""

    server: ServerProcess
    gateways: dict[str, GatewayProcess]
    flags: list[str]
    folder: Path

    def order(self, channel: str, uid: str) -> str:
        """A new order, known to the gateway and, at Alipay, scanned."""
        body = DAY | {"type": channel, "uid": uid}
        made = json.loads(call(self.server, "/api/payment/order/create", body)[1])["data"]
        assert made["url"]
        if channel == "alipay":
            self.gateways[channel].tell("scan", order=made["orderId"])
        return made["orderId"]

    def pay(self, channel: str, order_id: str) -> None:
        self.gateways[channel].tell("pay", order=order_id)

    def notify(self, channel: str, order_id: str, **how: Any) -> list[dict[str, Any]]:
        """What the gateway got for its notifications."""
        return self.gateways[channel].tell("notify", order=order_id, **how)

    def status(self, order_id: str) -> int:
        path = f"/api/payment/order/query-by-id?orderId={order_id}"
        return json.loads(call(self.server, path)[1])["data"]["status"]

    def days(self, uid: str) -> list[dict[str, Any]]:
        path = f"/api/payment/entitlements?uid={uid}"
        return json.loads(call(self.server, path)[1])["data"]


def flags(port: int, made: dict[str, Path], gateways: dict[str, GatewayProcess]) -> list[str]:
    """The settings of a merchant of both gateways."""
    address = f"http://127.0.0.1:{port}/api/payment/notify"
    wechat, alipay = made["tecent-pay"], made["alipay"]
    return [
        f"--wechat-merchant-id={keys.WECHAT_MERCHANT}",
        f"--wechat-app-id={keys.WECHAT_APP}",
        f"--wechat-private-key={wechat / 'merchant.key'}",
        f"--wechat-certificate={wechat / 'merchant.crt'}",
        f"--wechat-api-v3-key={keys.API_V3_KEY}",
        f"--wechat-notify-url={address}/wechat",
        f"--wechat-gateway-url={gateways['tecent-pay'].base_url}",
        f"--alipay-app-id={keys.ALIPAY_APP}",
        f"--alipay-seller-id={keys.ALIPAY_SELLER}",
        f"--alipay-private-key={alipay / 'app.key'}",
        f"--alipay-public-key={alipay / 'alipay.pub'}",
        f"--alipay-notify-url={address}/alipay",
        f"--alipay-gateway-url={gateways['alipay'].base_url}/gateway.do",
    ]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    made = {"tecent-pay": keys.make_wechat(folder / "w"), "alipay": keys.make_alipay(folder / "a")}
    with (
        GatewayProcess("wechat", made["tecent-pay"], folder / "wechat.log") as wechat,
        GatewayProcess("alipay", made["alipay"], folder / "alipay.log") as alipay,
    ):
        gateways = {"tecent-pay": wechat, "alipay": alipay}
        port = free_port()
        settings = flags(port, made, gateways)
        with ServerProcess(folder / "data", *settings, port=port) as server:
            yield Shop(server, gateways, settings, folder / "data")


def received(channel: str, answer: dict[str, Any]) -> bool:
    """Whether the gateway takes the answer for "received"."""
    if channel == "alipay":
        return answer == {"status": 200, "body": "success"}
    return answer["status"] in (200, 204) and not answer["body"]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_notification_pays_the_order_and_grants_what_was_bought(shop: Shop, channel: str) -> None:
    order_id = shop.order(channel, f"once-{channel}")
    shop.pay(channel, order_id)

    (answer,) = shop.notify(channel, order_id)

    assert received(channel, answer)
    assert shop.status(order_id) == 1
    (days,) = shop.days(f"once-{channel}")
    assert days["active"]


@pytest.mark.parametrize("channel", CHANNELS)
def test_ten_notifications_at_once_and_more_later_grant_one_day(shop: Shop, channel: str) -> None:
    uid = f"ten-{channel}"
    order_id = shop.order(channel, uid)
    shop.pay(channel, order_id)

    answers = shop.notify(channel, order_id, times=10)
    granted = shop.days(uid)
    answers += shop.notify(channel, order_id)

    assert all(received(channel, answer) for answer in answers)
    assert shop.days(uid) == granted


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("variant", ["wrong_amount", "wrong_merchant", "other_app"])
def test_a_genuine_notification_that_does_not_fit_grants_nothing(
    shop: Shop, channel: str, variant: str
) -> None:
    uid = f"{variant}-{channel}"
    order_id = shop.order(channel, uid)
    shop.pay(channel, order_id)

    shop.notify(channel, order_id, variant=variant)

    assert shop.status(order_id) == 0
    assert shop.days(uid) == []


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("variant", ["other_key", "altered"])
def test_a_notification_that_is_not_genuine_is_refused_and_grants_nothing(
    shop: Shop, channel: str, variant: str
) -> None:
    uid = f"{variant}-{channel}"
    order_id = shop.order(channel, uid)
    shop.pay(channel, order_id)

    (answer,) = shop.notify(channel, order_id, variant=variant)

    assert not received(channel, answer)
    assert shop.status(order_id) == 0
    assert shop.days(uid) == []


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_notification_before_the_answer_to_the_order_is_no_trouble(
    shop: Shop, channel: str
) -> None:
    call_ = "place" if channel == "tecent-pay" else "precreate"
    shop.gateways[channel].tell("fault", call=call_, kind="notify_before")

    body = DAY | {"type": channel, "uid": f"early-{channel}"}
    made = json.loads(call(shop.server, "/api/payment/order/create", body)[1])["data"]

    until(lambda: shop.status(made["orderId"]) == 1)


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_notification_that_never_comes_is_made_up_for_by_hand(shop: Shop, channel: str) -> None:
    uid = f"lost-{channel}"
    order_id = shop.order(channel, uid)
    shop.pay(channel, order_id)
    assert shop.status(order_id) == 0

    done = subprocess.run(
        [*COMMAND, f"--date={datetime.now(UTC).date()}", f"--data-dir={shop.folder}", *shop.flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert shop.status(order_id) == 1, done.stderr
    (days,) = shop.days(uid)
    assert days["active"]


def test_after_kill_9_the_next_notification_finishes_it(shop: Shop) -> None:
    order_id = shop.order("alipay", "killed")
    shop.pay("alipay", order_id)
    port = shop.server.port
    shop.server.kill()

    with ServerProcess(shop.folder, *shop.flags, port=port) as again:
        after = replace(shop, server=again)
        (answer,) = after.notify("alipay", order_id)

        assert received("alipay", answer)
        assert after.status(order_id) == 1
        (days,) = after.days("killed")
        assert days["active"]
