"""The gateway's bill of a day, compared with what is recorded here.

The law: a payment that is in the bill and not here is not only reported: its order is asked about
and settled, as if its notification had come. What differs after that is a case for a person, and
the day counts as compared only when all of it is written down. Days are the gateways': UTC+8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import store, tables
from vision.payments.database import Database
from vision.payments.gateway import BillLine, Channel
from vision.payments.moments import BEIJING
from vision.payments.money import yuan
from vision.payments.settle import Settler
from vision.payments.store import Case

# The gateways' bills of a day are final by ten; half an hour for the slow ones.
READY: Final = timedelta(hours=10, minutes=30)

NOT_HERE: Final = "bill_payment_not_here"
NOT_THERE: Final = "bill_payment_not_there"
AMOUNT: Final = "bill_amount"
REFUND_NOT_HERE: Final = "bill_refund_not_here"

_logger = structlog.get_logger("vision.payments")


class Bills:
    """Compares bills."""

    def __init__(self, database: Database, settler: Settler, clock: Callable[[], int]) -> None:
        self._database = database
        self._settler = settler
        self._clock = clock

    async def compare(
        self, channel: Channel, day: date, progress: Callable[[int, int], None]
    ) -> Sequence[Case]:
        """Compare a day; the differences, which are cases then. `progress` hears done and total.

        Raises GatewayUnavailable, GatewayRefused and StoreUnavailable; the day can be repeated.
        """
        lines = await self._settler.gateway(channel).bill(day)
        cases: list[Case] = []
        for number, line in enumerate(lines, start=1):
            case = await self._compare(channel, line)
            cases += [case] if case else []
            progress(number, len(lines))
        cases += await self._missing(channel, day, {line.transaction_id for line in lines})
        await self._record(channel, day, cases)
        for case in cases:
            _logger.error("bill_differs", kind=case.kind, order_id=case.order_id, why=case.detail)
        return cases

    async def compared(self, channel: Channel, day: date) -> bool:
        """Whether this day has been compared."""
        bills = tables.bills.c
        query = select(bills.day).where(bills.channel == channel, bills.day == day.isoformat())

        async def act(connection: AsyncConnection) -> bool:
            return (await connection.execute(query)).first() is not None

        return await self._database.read(act)

    async def _compare(self, channel: Channel, line: BillLine) -> Case | None:
        if line.kind == "refund":
            return await self._compare_refund(line)
        amount = await self._amount(channel, line)
        if amount is None:
            standing = await self._settler.gateway(channel).query(line.order_id)
            if standing.payment is not None and standing.state == "paid":
                await self._settler.settle(standing.payment, "reconcile")
            amount = await self._amount(channel, line)
        if amount is None:
            detail = f"the bill has a payment of {yuan(line.amount)} that is not recorded here"
            return Case(NOT_HERE, f"{channel}:{line.transaction_id}", line.order_id, detail)
        if amount != line.amount:
            detail = f"the bill says {yuan(line.amount)}, recorded is {yuan(amount)}"
            return Case(AMOUNT, f"{channel}:{line.transaction_id}", line.order_id, detail)
        return None

    async def _amount(self, channel: Channel, line: BillLine) -> int | None:
        payments = tables.payments.c
        query = select(payments.amount).where(
            payments.channel == channel, payments.transaction_id == line.transaction_id
        )
        return await self._database.read(lambda connection: connection.scalar(query))

    async def _compare_refund(self, line: BillLine) -> Case | None:
        refunds = tables.refunds.c
        query = select(refunds.amount).where(refunds.refund_id == (line.refund_id or ""))
        amount = await self._database.read(lambda connection: connection.scalar(query))
        if amount == line.amount:
            return None
        ours = "nothing" if amount is None else yuan(amount)
        detail = f"the bill has a refund of {yuan(line.amount)}, recorded is {ours}"
        subject = line.refund_id or line.transaction_id
        return Case(REFUND_NOT_HERE, subject, line.order_id, detail)

    async def _missing(self, channel: Channel, day: date, billed: set[str]) -> list[Case]:
        """What is recorded here as paid on that day and is not in the bill."""
        begin = datetime(day.year, day.month, day.day, tzinfo=BEIJING)
        first, last = (int(each.timestamp() * 1000) for each in (begin, begin + timedelta(days=1)))
        payments = tables.payments.c
        query = select(payments.transaction_id, payments.order_id, payments.amount).where(
            payments.channel == channel,
            payments.refusal == "",
            payments.paid_at >= first,
            payments.paid_at < last,
        )

        async def act(connection: AsyncConnection) -> list[Case]:
            return [
                Case(
                    NOT_THERE,
                    f"{channel}:{transaction_id}",
                    order_id,
                    f"recorded here as paid {yuan(amount)}; the bill of {day} has no such payment",
                )
                for transaction_id, order_id, amount in await connection.execute(query)
                if transaction_id not in billed
            ]

        return await self._database.read(act)

    async def _record(self, channel: Channel, day: date, cases: Sequence[Case]) -> None:
        now = self._clock()
        bills = tables.bills.c
        values = {"channel": channel, "day": day.isoformat()}
        there = select(bills.day).where(bills.channel == channel, bills.day == day.isoformat())

        async def act(connection: AsyncConnection) -> None:
            for case in cases:
                await store.open_case(connection, case, now)
            if (await connection.execute(there)).first() is None:
                counted = {"differences": len(cases), "compared_at": now}
                await connection.execute(insert(tables.bills).values(values | counted))

        await self._database.write(act)


def last_final_day(now: int) -> date:
    """The latest day whose bill is final at this time, in ms since the epoch."""
    there = datetime.fromtimestamp(now / 1000, UTC).astimezone(BEIJING) - READY
    return there.date() - timedelta(days=1)
