"""Reconcile: find out what really happened, where nobody told us.

The law: no order waits for a notification that does not come. Whoever holds the lease asks the
gateways about unpaid orders, at growing intervals, settles what was paid and closes what expired;
asks about refunds that are pending; and compares yesterday's bill. There are no grants to finish: a
grant is committed with its payment or not at all. All of it may be done twice, or by two at once,
without harm; a gateway that does not answer for one order keeps no other from its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Final, TypeVar

import structlog
from sqlalchemy import ColumnElement, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.errors import StoreUnavailable, VisionError
from vision.payments import store, tables
from vision.payments.bill import Bills, last_final_day
from vision.payments.checkout import Checkout
from vision.payments.database import Database
from vision.payments.errors import PaymentError
from vision.payments.gateway import Channel
from vision.payments.intake import Intake
from vision.payments.lease import Lease
from vision.payments.order import Order, Status, next_check
from vision.payments.refunds import Refund, Refunds
from vision.payments.store import Case

# Between two rounds: an order is asked about a minute after it was made, and this late at most.
ROUND_SECONDS: Final = 10.0

# Of one round; the lease is renewed after each, so it must be done well before it runs out.
BATCH: Final = 50

# Questions to the gateways at the same time; they allow some tens a second.
AT_ONCE: Final = 4

# The server is ending; a database that does not answer must not keep it.
LEAVE_SECONDS: Final = 2.0

# A bill that cannot be had is asked for again after this.
BILL_PAUSE_MS: Final = 30 * 60_000

T = TypeVar("T")

_logger = structlog.get_logger("vision.payments")


class Reconciler:
    """Looks after what is open, on one process at a time. `run` is owned by the server's task."""

    def __init__(
        self,
        *,
        database: Database,
        lease: Lease,
        checkout: Checkout,
        refunds: Refunds,
        bills: Bills,
        intake: Intake,
        channels: Sequence[Channel],
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._lease = lease
        self._checkout = checkout
        self._refunds = refunds
        self._bills = bills
        self._intake = intake
        self._channels = channels
        self._clock = clock
        self._next_bill = 0

    async def run(self) -> None:
        """Go on for ever; give the lease up when cancelled."""
        try:
            while True:
                try:
                    await self.round()
                except StoreUnavailable as error:
                    _logger.warning("reconcile_waits", why=error.message)
                await asyncio.sleep(ROUND_SECONDS)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        """Let another process go on at once, rather than when the lease has run out."""
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._lease.give_up()
        except (StoreUnavailable, TimeoutError) as error:
            _logger.warning("lease_kept", why=str(error))

    async def round(self) -> None:
        """Everything that is due, if this process has the lease or can take it."""
        while await self._lease.take():
            orders = await self.due()
            refunds = await self._refunds.due(self._clock(), BATCH)
            if not orders and not refunds:
                await self._compare_bills()
                return
            await self.check(orders)
            await _each(refunds, self._check_refund)

    async def due(self) -> Sequence[Order]:
        """Unpaid orders that it is time to ask about."""
        orders = tables.orders.c
        due = orders.next_check_at <= self._clock()
        return await self._unpaid(due, orders.next_check_at)

    async def unpaid(self, after: int) -> Sequence[Order]:
        """The next unpaid orders behind a number, whether it is time to ask about them or not."""
        orders = tables.orders.c
        return await self._unpaid(orders.id > after, orders.id)

    async def _unpaid(self, which: ColumnElement[bool], by: ColumnElement[int]) -> Sequence[Order]:
        query = store.select_orders().where(tables.orders.c.status == Status.UNPAID, which)

        async def act(connection: AsyncConnection) -> list[Order]:
            rows = await connection.execute(query.order_by(by).limit(BATCH))
            return [store.order_of(row) for row in rows.mappings()]

        return await self._database.read(act)

    async def check(self, orders: Sequence[Order]) -> None:
        """Ask the gateways about these orders, and do what follows."""
        await _each(orders, self._check_order)

    async def compare(self, day: date, progress: Callable[[int, int], None]) -> Sequence[Case]:
        """Compare the bills of a day, of all channels, now. Raises what `Bills.compare` does."""
        return [
            case
            for channel in self._channels
            for case in await self._bills.compare(channel, day, progress)
        ]

    async def _check_order(self, order: Order) -> None:
        # First, so that an order whose check fails for whatever reason does not come again at once.
        await self._postpone(order)
        await self._checkout.look(order, "reconcile")

    async def _postpone(self, order: Order) -> None:
        now = self._clock()
        checks = order.checks + 1
        soon = next_check(checks, now)
        values = {
            "checks": checks,
            "next_check_at": min(soon, order.expires_at) if order.expires_at > now else soon,
        }
        where = tables.orders.c.order_id == order.order_id

        async def act(connection: AsyncConnection) -> None:
            await connection.execute(update(tables.orders).where(where).values(values))

        await self._database.write(act)

    async def _check_refund(self, refund: Refund) -> None:
        await self._refunds.postpone(refund, self._clock())
        await self._refunds.pursue(refund)

    async def _compare_bills(self) -> None:
        now = self._clock()
        if now < self._next_bill:
            return
        self._next_bill = now + BILL_PAUSE_MS
        await self._intake.forget()
        day = last_final_day(now)
        for channel in self._channels:
            try:
                if not await self._bills.compared(channel, day):
                    await self._bills.compare(channel, day, lambda _done, _total: None)
            except PaymentError as error:
                _logger.warning("bill_not_compared", channel=channel, why=error.message)


async def _each(items: Sequence[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Do it for each, a few at the same time. What one cannot have keeps no other waiting."""
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            try:
                await act(item)
            except VisionError as error:
                _logger.warning("check_failed", code=error.code, why=error.message)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(items))):
            group.create_task(work())
