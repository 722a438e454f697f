"""A process that dies before each of the steps of an action, one after the other.

    python -m tests.service.payments.killed URL ACTION

The law: a step is a statement, a commit, a call of the gateway (before and after it is carried
out), or the news of a change. For each the process forks; the child begins the action and dies
there as by `kill -9`; then the parent looks at what is in the database, does the action again and
looks once more. It ends when a child survives. It prints the steps that children have died at.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from sqlalchemy import event

from tests.shop import Shop, orphans, payment, request
from vision.payments.internal import Told
from vision.payments.order import Order, Status
from vision.payments.refunds import RefundRequest

Act = Callable[[Shop, Order, str], Awaitable[object]]


class Steps:
    """Counts steps, and ends the process at one."""

    def __init__(self, deadly: int) -> None:
        self._deadly = deadly
        self._seen = 0

    def step(self, *_: Any) -> None:
        if self._seen == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        self._seen += 1

    def watch(self, shop: Shop) -> None:
        engine = shop.database._engine.sync_engine
        event.listen(engine, "before_cursor_execute", self.step)
        event.listen(engine, "commit", self.step)
        shop.gateway.before = shop.gateway.after = self.step
        shop.heard = self.step


async def create(shop: Shop, _: Order, name: str) -> None:
    await shop.checkout.create(request(uid=name, promo_code="CODE", amount=1000), name)


async def settle(shop: Shop, order: Order, name: str) -> None:
    await shop.settler.settle(payment(order, name), "notification")


async def tell(shop: Shop, order: Order, name: str) -> None:
    await shop.internal.tell(Told(order.uid, order.product_id, order.amount, None, name))


async def refund(shop: Shop, order: Order, name: str) -> None:
    await shop.refunds.refund(RefundRequest(order.order_id, 400, refund_id=name))


async def close(shop: Shop, order: Order, _: str) -> None:
    shop.now = order.expires_at
    await shop.checkout.look(order, "reconcile")


ACTIONS: dict[str, Act] = {each.__name__: each for each in (create, settle, tell, refund, close)}


async def prepare(shop: Shop, action: str, name: str) -> Order:
    """An order to act on, of a user of its own."""
    order = await shop.order(uid=f"before {name}", promo_code="CODE", amount=1000)
    if action == "refund":
        await shop.settler.settle(payment(order, f"paid {name}"), "notification")
    return await shop.checkout.find(order.order_id)


async def begin(url: str, action: str, order: Order, name: str, deadly: int) -> None:
    """In the child."""
    shop = Shop(url)
    Steps(deadly).watch(shop)
    await ACTIONS[action](shop, order, name)
    await shop.close()


async def look(shop: Shop) -> None:
    """What holds at any time."""
    assert await orphans(shop.database) == 0
    assert await shop.column("promo_codes", "used") == [await shop.count("promo_uses")]
    for reserved in await shop.column("payments", "reserved"):
        assert reserved in {0, 400}


async def done(shop: Shop, action: str, order: Order, name: str) -> None:
    """What holds when the action was done again."""
    found = await shop.checkout.find(order.order_id)
    if action == "create":
        (made,) = (await shop.checkout.page(1, 10, name)).orders
        assert (made.status, bool(made.code_url)) == (Status.UNPAID, True)
    elif action == "refund":
        assert (found.status, found.refunded) == (Status.PAID, 400)
        (entitlement,) = await shop.checkout.entitlements(found.uid)
        assert entitlement.ends_at == shop.now + 18 * 24 * 60 * 60 * 1000
    else:
        assert found.status is (Status.CLOSED if action == "close" else Status.PAID)


async def after(url: str, action: str, order: Order, name: str) -> None:
    """In the parent."""
    shop = Shop(url)
    await look(shop)
    await ACTIONS[action](shop, order, name)
    await look(shop)
    shop.now = Shop(url).now
    await done(shop, action, order, name)
    assert await shop.cases() == []
    await shop.close()


async def prepared(url: str, action: str, name: str) -> Order:
    shop = Shop(url)
    order = await prepare(shop, action, name)
    await shop.close()
    return order


def main(url: str, action: str) -> int:
    """How many steps there were."""
    for deadly in count():
        name = secrets.token_hex(8)
        order = asyncio.run(prepared(url, action, name))
        child = os.fork()
        if child == 0:
            asyncio.run(begin(url, action, order, name, deadly))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return deadly
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "the child failed by itself"
        asyncio.run(after(url, action, order, name))
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.stdout.write(f"{main(*sys.argv[1:])}\n")
