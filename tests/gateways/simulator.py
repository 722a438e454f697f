"""What both simulators share: orders, faults on demand, a control endpoint, sending notifications.

The law: a simulator does what it is told and nothing by chance. `POST /control` with
`{"action": NAME, ...}` calls `do_NAME`; a fault is told for one kind of call and used up by it.
What it was asked is recorded. No simulator uses the server's code.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

# Longer than any client waits for an answer in a test.
HANG_SECONDS = 30.0


@dataclass
class Order:
    """An order at the gateway. Money in fen, times in seconds."""

    number: str
    amount: int
    content: dict[str, Any]
    notify_url: str
    state: str = "open"  # open, paid, closed
    transaction: str = ""
    paid_at: float = 0.0
    refunds: dict[str, int] = field(default_factory=dict)


class Simulator:
    """One gateway: its orders and what it was told. Subclasses speak a protocol."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.faults: list[tuple[str, str]] = []
        self.seen: list[str] = []
        self.port = 0
        self._count = 0

    def take_fault(self, call: str) -> str:
        """The next fault that was told for this call, or ""."""
        for index, (name, kind) in enumerate(self.faults):
            if name == call:
                del self.faults[index]
                return kind
        return ""

    def pay(self, order: Order) -> None:
        """The payer pays; nobody is told."""
        if order.state != "paid":
            self._count += 1
            order.state = "paid"
            order.transaction = f"42000{int(time.time())}{self._count:06d}"
            order.paid_at = time.time()

    def notification(self, order: Order, variant: str) -> tuple[dict[str, str], bytes]:
        """The headers and the body that tell of the payment; `variant` says what is wrong."""
        raise NotImplementedError

    async def send(self, order: Order, variant: str = "") -> dict[str, Any]:
        """Post a notification to where the order asks for it: the status and the body."""
        headers, body = self.notification(order, variant)
        request = HTTPRequest(
            order.notify_url, "POST", headers, body, request_timeout=10, follow_redirects=False
        )
        answer = await AsyncHTTPClient().fetch(request, raise_error=False)
        return {"status": answer.code, "body": answer.body.decode()}

    async def do_fault(self, call: str, kind: str, times: int = 1) -> None:
        """The next `times` calls of this kind go wrong in this way."""
        self.faults += [(call, kind)] * times

    async def do_pay(self, order: str) -> str:
        """Pay an order; its transaction number."""
        self.pay(self.orders[order])
        return self.orders[order].transaction

    async def do_notification(self, order: str, variant: str = "") -> dict[str, Any]:
        """A notification, not sent: a test delivers it as it likes."""
        headers, body = self.notification(self.orders[order], variant)
        return {"headers": headers, "body": body.decode()}

    async def do_notify(self, order: str, variant: str = "", times: int = 1) -> list[Any]:
        """Send a notification `times` at once; the answers."""
        sends = (self.send(self.orders[order], variant) for _ in range(times))
        return list(await asyncio.gather(*sends))

    async def do_order(self, order: str) -> dict[str, Any] | None:
        """An order as it stands."""
        return vars(self.orders[order]) if order in self.orders else None

    async def do_seen(self) -> list[str]:
        """The calls so far."""
        return self.seen


class Control(RequestHandler):
    """`POST /control`."""

    def initialize(self, simulator: Simulator) -> None:
        self.simulator = simulator

    async def post(self) -> None:
        told: dict[str, Any] = json.loads(self.request.body)
        action = getattr(self.simulator, "do_" + told.pop("action"))
        result = action(**told)
        self.finish(json.dumps({"result": await result if inspect.isawaitable(result) else result}))


class GatewayHandler(RequestHandler):
    """A call of the gateway's API: checks, does, and answers, well or badly as told."""

    def initialize(self, simulator: Any) -> None:
        self.simulator = simulator

    def set_default_headers(self) -> None:
        self.clear_header("Content-Type")

    async def hang(self) -> None:
        """Say nothing until the client has gone."""
        await asyncio.sleep(HANG_SECONDS)

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Exactly these bytes."""
        self.set_status(status)
        for name, value in headers.items():
            self.set_header(name, value)
        self.finish(body if status != 204 else None)


async def _serve(simulator: Simulator, routes: list[Any], port: int) -> None:
    sockets = bind_sockets(port, "127.0.0.1")
    simulator.port = sockets[0].getsockname()[1]
    app = Application([(r"/control", Control, {"simulator": simulator}), *routes])
    HTTPServer(app).add_sockets(sockets)
    sys.stdout.write(f"{simulator.port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def arguments() -> argparse.Namespace:
    """`--port` (0: any free one) and `--keys FOLDER`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--keys", required=True)
    parser.add_argument("--mode", default="")
    return parser.parse_args()


def serve(simulator: Simulator, routes: list[Any], port: int) -> None:
    """Print the port and serve until ended."""
    try:
        asyncio.run(_serve(simulator, routes, port))
    except KeyboardInterrupt:
        sys.exit(0)
