"""How many calls of one upstream may run at the same time.

The law: a slot is given in the order of asking, never to two calls, and is never lost, whatever is
cancelled when. A waiter that is cancelled leaves the queue; if it was given a slot at the very
moment of its cancellation, the slot goes to the next. Nobody overtakes: while someone waits, a
newcomer waits behind them even if a slot is free for an instant.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Limiter:
    """`capacity` slots, handed out first come, first served. For one event loop."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a limiter needs at least one slot, not {capacity}")
        self.capacity = capacity
        self._running = 0
        # Bounded by its users: a mission queues at most one call for each of its nodes, and a
        # process takes only as many missions as it has room for.
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def running(self) -> int:
        """Slots in use."""
        return self._running

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return len(self._waiters)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Holds one slot; waits for it as long as it takes, and may be cancelled while waiting."""
        await self._acquire()
        try:
            yield
        finally:
            self._release()

    async def _acquire(self) -> None:
        if self._running < self.capacity and not self._waiters:
            self._running += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._release()  # it was given a slot in the same turn
            elif waiter in self._waiters:  # or `_release` has already passed it over
                self._waiters.remove(waiter)
            raise

    def _release(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                # The slot changes hands without becoming free: `_running` stays as it is.
                waiter.set_result(None)
                return
        self._running -= 1
