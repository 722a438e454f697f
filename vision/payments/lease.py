"""A lease in the database: one process at a time, and any other when that one is gone.

The law: at most one holder at a time by the database's word, as far as the clocks of the processes
agree. It saves work, it does not guard: whoever works under a lease must do no harm when another
does the same at the same moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from vision.payments import tables
from vision.payments.database import Database

# A holder that died leaves its work undone for this long. It is renewed many times in between.
LEASE_MS: Final = 60_000


class Lease:
    """One named lease, for one holder."""

    def __init__(
        self, database: Database, name: str, holder: str, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._name = name
        self._holder = holder
        self._clock = clock

    async def take(self) -> bool:
        """Take it or renew it; whether this holder has it now. Raises StoreUnavailable."""
        return await self._database.write(self._take)

    async def _take(self, connection: AsyncConnection) -> bool:
        locks = tables.locks
        now = self._clock()
        values = {"holder": self._holder, "expires_at": now + LEASE_MS}
        free = or_(locks.c.holder == self._holder, locks.c.expires_at <= now)
        taken = await connection.execute(
            update(locks).where(locks.c.name == self._name, free).values(values)
        )
        if taken.rowcount:
            return True
        there = await connection.execute(select(locks.c.name).where(locks.c.name == self._name))
        if there.first() is not None:
            return False
        await connection.execute(insert(locks).values(name=self._name, **values))
        return True

    async def give_up(self) -> None:
        """Let another take it at once. Raises StoreUnavailable."""
        locks = tables.locks.c

        async def act(connection: AsyncConnection) -> None:
            mine = (locks.name == self._name, locks.holder == self._holder)
            await connection.execute(delete(tables.locks).where(*mine))

        await self._database.write(act)
