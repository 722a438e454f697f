"""A database that is locked, away or crowded: what is answered is true, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import text
from tornado.ioloop import IOLoop

from tests.conftest import require
from tests.mariadb import MariaDB
from tests.processes import ROOT
from tests.service.payments.crowd import ORDERS
from tests.shop import Shop, orphans, payment
from vision.errors import StoreUnavailable
from vision.payments import database as module
from vision.payments.gateway import Notification
from vision.payments.order import Status
from vision.payments.product import PromoCode
from vision.payments.settle import apply

PROCESSES = 4


def test_processes_that_do_the_same_at_once_do_it_once(
    io_loop: IOLoop, shop: Shop, database_url: str
) -> None:
    async def prepare() -> str:
        await shop.sell(promo_codes=[PromoCode("CODE", "fixed", 200, total_limit=7)])
        paid = await shop.order(uid="paid")
        await shop.settler.settle(payment(paid), "notification")
        for number in range(10):
            await shop.order(uid=f"u{number % 3}")
        return paid.order_id

    paid = io_loop.run_sync(prepare)
    command = [sys.executable, "-m", "tests.service.payments.crowd", database_url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    crowd = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(PROCESSES)]
    assert [each.stdout.readline() for each in crowd] == ["ready\n"] * PROCESSES
    for each in crowd:
        each.stdin.write("go\n")
        each.stdin.flush()
    answers = [each.communicate(timeout=50) for each in crowd]

    counts: Counter[str] = Counter()
    for out, error in answers:
        assert out, error
        counts.update(json.loads(out.splitlines()[-1]))
    assert counts == {"settled": 10, "ordered": 7, "refunded": 12}
    assert io_loop.run_sync(lambda: orphans(shop.database)) == 0
    assert io_loop.run_sync(lambda: shop.column("promo_codes", "used")) == [7]
    assert io_loop.run_sync(lambda: shop.checkout.find(paid)).status is Status.REFUNDED
    assert PROCESSES * ORDERS > 12


@pytest.mark.gen_test
async def test_a_close_that_comes_while_a_payment_is_being_written_waits_for_it(
    mariadb: MariaDB,
) -> None:
    url = mariadb.fresh()
    shop, other = Shop(url), Shop(url)
    await shop.open()
    order = await shop.order()
    shop.now = other.now = order.expires_at
    waiting = text("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state='LOCK WAIT'")

    async def pay(connection):
        ours = shop.settler.recipient("alipay")
        await apply(connection, payment(order), "notification", ours, shop.now)
        closing = asyncio.create_task(other.checkout.look(order, "reconcile"))
        while not await shop.database.read(lambda looking: looking.scalar(waiting)):
            await asyncio.sleep(0.2)  # InnoDB shows the same again to who looks sooner
        return closing

    closing = await shop.database.write(pay)
    await closing

    assert (await shop.checkout.find(order.order_id)).status is Status.PAID
    assert await orphans(shop.database) == 0
    await shop.close()
    await other.close()


@pytest.mark.gen_test
async def test_a_writer_that_is_cancelled_while_it_waits_leaves_nothing_behind(
    shop: Shop, database_url: str
) -> None:
    other = Shop(database_url)
    order = await shop.order()
    begun, finish = asyncio.Event(), asyncio.Event()

    async def hold(connection):
        ours = other.settler.recipient("alipay")
        settlement = await apply(connection, payment(order), "query", ours, other.now)
        begun.set()
        await finish.wait()
        return settlement

    holding = asyncio.create_task(other.database.write(hold))
    await begun.wait()
    waiting = [
        asyncio.create_task(shop.settler.settle(payment(order), "query"))
        for _ in range(module.MYSQL_CONNECTIONS + 3)
    ]
    await asyncio.sleep(0.1)  # some have begun to wait for the lock, some for a connection
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    finish.set()

    assert all(task.cancelled() for task in waiting)
    assert (await holding).verdict == "settled"
    assert (await shop.settler.settle(payment(order), "query")).verdict == "already"
    await other.close()


@pytest.mark.gen_test
async def test_a_lock_that_is_held_too_long_is_an_outage_that_passes(
    shop: Shop, database_url: str
) -> None:
    other = Shop(database_url)
    order = await shop.order()
    shop.gateway.says = Notification("alipay", "n1", "payment", payment(order))
    begun, finish = asyncio.Event(), asyncio.Event()

    async def hold(connection):
        ours = other.settler.recipient("alipay")
        await apply(connection, payment(order, amount=1), "query", ours, other.now)
        begun.set()
        await finish.wait()

    async def give_way():
        holding = asyncio.create_task(other.database.write(hold))
        await begun.wait()
        with pytest.raises(StoreUnavailable, match="the payment store is busy; try again"):
            await shop.settler.settle(payment(order), "query")
        finish.set()
        await holding

    await give_way()

    assert (await shop.payments.intake.receive("alipay", {}, b"")).status == 200
    assert (await shop.checkout.find(order.order_id)).status is Status.PAID
    await other.close()


@pytest.mark.gen_test
async def test_a_server_that_went_away_and_came_back_is_used_again(tmp_path: Path) -> None:
    server = MariaDB(require("mariadbd"), tmp_path)
    with server.connection() as connection:
        connection.cursor().execute("SET GLOBAL innodb_flush_log_at_trx_commit=1")
    shop = Shop(server.fresh())
    try:
        await shop.open()
        order = await shop.order()
        shop.gateway.says = Notification("alipay", "n1", "payment", payment(order))
        await asyncio.to_thread(server.stop)

        with pytest.raises(StoreUnavailable, match="the payment store does not answer"):
            await shop.settler.settle(payment(order), "query")
        refused = await shop.payments.intake.receive("alipay", {}, b"")
        await asyncio.to_thread(server.start)
        received = await shop.payments.intake.receive("alipay", {}, b"")

        assert (refused.status, received.status) == (500, 200)
        assert (await shop.checkout.find(order.order_id)).status is Status.PAID
    finally:
        await shop.close()
        await asyncio.to_thread(server.stop)
