"""Simulators with their keys, gateways that are set up from files as a merchant would, a receiver.

The law: keys are made once, simulators run for all tests of a module, and every order has a number
of its own, so that no test sees another's.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from functools import partial
from pathlib import Path

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.gateways import keys
from tests.gateways.process import GatewayProcess
from vision.payments.alipay import AlipayGateway
from vision.payments.alipay_config import AlipayFiles, load_alipay
from vision.payments.errors import PaymentError
from vision.payments.exchange import Pace
from vision.payments.gateway import PlaceOrder, RefundOrder
from vision.payments.wechat import WechatGateway
from vision.payments.wechat_config import WechatFiles, load_wechat

# Short, because a simulator that hangs is waited for; on a busy machine it still answers in time.
PACE = Pace(connect=1.0, answer=1.5, bill=10.0, pauses=(0.02, 0.02), refresh=0.2)
NOTIFY = "http://127.0.0.1:1/notify"


@pytest.fixture(scope="session")
def wechat_keys(tmp_path_factory):
    return keys.make_wechat(tmp_path_factory.mktemp("wechat"))


@pytest.fixture(scope="session")
def alipay_keys(tmp_path_factory):
    return keys.make_alipay(tmp_path_factory.mktemp("alipay"))


@pytest.fixture(scope="module")
def wechat(wechat_keys, tmp_path_factory):
    with GatewayProcess("wechat", wechat_keys, tmp_path_factory.mktemp("log") / "log") as process:
        yield process


@pytest.fixture(scope="module")
def alipay(alipay_keys, tmp_path_factory):
    with GatewayProcess("alipay", alipay_keys, tmp_path_factory.mktemp("log") / "log") as process:
        yield process


@pytest.fixture(scope="module")
def with_certificates(alipay_keys, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log"
    with GatewayProcess("alipay", alipay_keys, log, mode="certificate") as process:
        yield process


@pytest.fixture(params=["public key", "certificates"])
def simulator(request, alipay, with_certificates):
    return alipay if request.param == "public key" else with_certificates


@pytest.fixture
def alipay_gateway(io_loop, opened, simulator, with_certificates, alipay_keys):
    certificate = alipay_keys / "alipay.crt" if simulator is with_certificates else None
    config = alipay_config(alipay_keys, simulator.base_url, certificate=certificate)
    return io_loop.run_sync(partial(opened, config))


@pytest.fixture
def by_certificate(io_loop, opened, wechat, wechat_keys):
    return io_loop.run_sync(partial(opened, wechat_config(wechat_keys, wechat.base_url)))


@pytest.fixture
def by_public_key(io_loop, opened, wechat, wechat_keys):
    return io_loop.run_sync(
        partial(opened, wechat_config(wechat_keys, wechat.base_url, public=True))
    )


def wechat_config(folder: Path, address: str, *, notify: str = NOTIFY, public: bool = False):
    """A merchant's configuration as it is loaded from the settings' files."""
    files = WechatFiles(
        merchant_id=keys.WECHAT_MERCHANT,
        app_id=keys.WECHAT_APP,
        private_key=folder / "merchant.key",
        certificate=folder / "merchant.crt",
        api_v3_key=keys.API_V3_KEY,
        public_key=folder / "public.pub" if public else None,
        public_key_id=keys.PUBLIC_KEY_ID if public else "",
        notify_url=notify,
        gateway_url=address,
    )
    config = load_wechat(files, time.time())
    assert config is not None
    return dataclasses.replace(config, pace=PACE)


def alipay_config(
    folder: Path, address: str, *, notify: str = NOTIFY, certificate: Path | None = None
):
    """A merchant's configuration; in certificate mode with this file of Alipay's certificates."""
    files = AlipayFiles(
        app_id=keys.ALIPAY_APP,
        seller_id=keys.ALIPAY_SELLER,
        private_key=folder / "app.key",
        public_key=None if certificate else folder / "alipay.pub",
        app_certificate=folder / "app.crt" if certificate else None,
        certificate=certificate,
        root_certificate=folder / "root.crt" if certificate else None,
        notify_url=notify,
        gateway_url=f"{address}/gateway.do",
    )
    config = load_alipay(files, time.time())
    assert config is not None
    return dataclasses.replace(config, pace=PACE)


@pytest.fixture
def opened(io_loop):
    """Makes gateways on the loop, and closes them."""
    made = []

    async def make(config):
        made.append((AlipayGateway if hasattr(config, "seller") else WechatGateway)(config))
        return made[-1]

    yield make
    for gateway in made:
        io_loop.run_sync(gateway.aclose)


class Receiver:
    """An endpoint for notifications, which reads them with `gateway` and keeps what they say."""

    def __init__(self) -> None:
        self.gateway = None
        self.read = []
        self.refused = []
        sockets = bind_sockets(0, "127.0.0.1")
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/notify"
        self.server = HTTPServer(Application([("/notify", _Notify, {"receiver": self})]))
        self.server.add_sockets(sockets)


class _Notify(RequestHandler):
    def initialize(self, receiver):
        self.receiver = receiver

    async def post(self):
        gateway, request = self.receiver.gateway, self.request
        try:
            read = await gateway.read_notification(request.headers, request.body, time.time())
        except PaymentError as error:
            self.receiver.refused.append(error)
            answer = gateway.refuse(error.message, retry=False)
        else:
            self.receiver.read.append(read)
            answer = gateway.acknowledge()
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        self.finish(answer.body or None)


@pytest.fixture
def receiver(io_loop):
    async def make():
        return Receiver()

    made = io_loop.run_sync(make)
    yield made
    made.server.stop()
    io_loop.run_sync(made.server.close_all_connections)


def an_order(amount: int = 990) -> PlaceOrder:
    """An order with a number that no other test has, payable for two hours."""
    return PlaceOrder(secrets.token_hex(16), amount, "一天 demo-day", now_ms() + 7_200_000)


def now_ms() -> int:
    return int(time.time() * 1000)


async def paid_order(gateway, simulator, amount=990):
    """An order that was placed and paid, and its transaction's number."""
    order = an_order(amount)
    await gateway.place(order)
    return order, simulator.tell("pay", order=order.order_id)


def refund_of(order, transaction_id, amount):
    """A refund with a number of its own."""
    number = secrets.token_hex(16)
    return RefundOrder(order.order_id, transaction_id, number, amount, order.amount, "退款")


async def read(gateway, sent):
    """What the gateway reads in a notification that a simulator gave."""
    return await gateway.read_notification(sent["headers"], sent["body"].encode(), time.time())
