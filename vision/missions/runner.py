"""The runner of a process: takes missions from the queue while it has room, and hands them over.

The law: a mission that was taken is run to its end, handed over, or left to be taken over; it is
never dropped. A claim is renewed while its mission runs; what was not renewed in time, because the
process was frozen or cut off, is another's, and is stopped here. A process that ends hands its
missions over at once, so that nobody waits for a claim to run out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from vision.errors import StoreUnavailable
from vision.missions.hub import Hub
from vision.missions.log import MAX_CLAIMS, Claim, MissionLog
from vision.missions.queue import MissionQueue, Ticket
from vision.missions.run import MissionRun

_logger = structlog.get_logger(__name__)

# How long one look into the queue waits: under the limit of one Redis call.
TAKE_WAIT_MS: Final = 2000

# Parts of the claim time: a claim that was silent for the first is taken over by the next look.
SILENT_PART: Final = 0.7
LOOK_PART: Final = 0.2

# Between two looks while Redis is away, and between two renewals that failed.
RETRY_SECONDS: Final = 0.5


class Runner:
    """Runs missions in this process, `room` at once. `run` is owned by the composition root."""

    def __init__(
        self,
        log: MissionLog,
        queue: MissionQueue,
        hub: Hub,
        start_run: Callable[[Claim], Awaitable[MissionRun]],
        *,
        room: int,
        claim_timeout: float,
    ) -> None:
        self._log = log
        self._queue = queue
        self._hub = hub
        self._start_run = start_run
        self._claim_timeout = claim_timeout
        self._tickets: dict[Ticket, asyncio.Task[None]] = {}
        self._exchanges: set[asyncio.Task[None]] = set()
        self._promised = 0  # places for what they will take
        self._freed = asyncio.Event()
        self._draining = False
        self.room = room
        self.runs: dict[str, MissionRun] = {}
        self.taking = False  # whether the last look into the queue went well

    async def run(self) -> None:
        """Take and run missions until cancelled or drained; none is left running."""
        try:
            await self._persist(self._take_left_over)
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._forever(self._take))
                loops.create_task(self._forever(self._take_over))
                loops.create_task(self._forever(self._renew))
        finally:
            await self._stop([*self._exchanges, *self._tickets.values()])

    async def offer(self, mission_id: str) -> None:
        """Queue a mission; with room here, one is taken in the same step, which spares the wait.

        So a mission runs where its client most likely watches it. Raises `Overloaded` and
        `StoreUnavailable`.
        """
        if not self.taking or self._free() <= 1:  # the last place is for what `_take` waits for
            await self._queue.offer(mission_id)
            return
        self._promised += 1
        exchange = asyncio.create_task(self._exchange(mission_id))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)
        # A client that leaves meanwhile must not take with it what was taken.
        await asyncio.shield(exchange)

    async def _exchange(self, mission_id: str) -> None:
        try:
            tickets = await self._queue.exchange(mission_id)
        finally:
            self._promised -= 1
            self._freed.set()
        await self._accept(tickets)

    async def drain(self) -> None:
        """Take no more, and hand every mission over to whoever has room, at once."""
        self._draining = True
        self.taking = False
        await asyncio.gather(*self._exchanges, return_exceptions=True)
        await asyncio.gather(*(self._hand_over(ticket) for ticket in list(self._tickets)))

    async def _hand_over(self, ticket: Ticket) -> None:
        run = self.runs.get(ticket.mission_id)
        if run is not None:
            await run.hand_over()
        # Asked before the run is stopped, which cancels what it waits for.
        ended = run is not None and run.writing.ended.done()
        if ticket in self._tickets:
            await self._stop([self._tickets[ticket]])
        if not ended:
            if run is not None:
                await self._log.release(ticket.mission_id, run.writing.epoch)
            await self._queue.hand_over(ticket)

    async def _stop(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._persist(step)

    async def _persist(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do one step; while Redis is away, try it again."""
        while True:
            try:
                await step()
            except StoreUnavailable as error:
                self.taking = False
                _logger.warning("queue_unavailable", error=error.message)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self.taking = not self._draining
                return

    async def _take_left_over(self) -> None:
        await self._queue.prepare()
        for ticket in await self._queue.left_over(self.room):
            self._serve(ticket)

    async def _take(self) -> None:
        await self._wait_for_room()
        await self._accept(await self._queue.take(1, TAKE_WAIT_MS))

    async def _take_over(self) -> None:
        # Silent for so long, looked for so often: within the claim time it is taken over.
        await asyncio.sleep(self._claim_timeout * LOOK_PART)
        if free := self._free():
            idle_ms = int(self._claim_timeout * SILENT_PART * 1000)
            await self._accept(await self._queue.take_over(free, idle_ms))

    async def _accept(self, tickets: Sequence[Ticket]) -> None:
        """Serve what there is room for; both ways to take may have counted on the same place."""
        for ticket in tickets:
            if self._free():
                self._serve(ticket)
            elif ticket not in self._tickets:
                await self._queue.hand_over(ticket)

    def _free(self) -> int:
        """Places for more missions."""
        return 0 if self._draining else max(0, self.room - len(self._tickets) - self._promised)

    async def _renew(self) -> None:
        # Three renewals fit into the silence that is allowed, so that one may be lost.
        await asyncio.sleep(self._claim_timeout * LOOK_PART)
        tickets = list(self._tickets)
        if tickets:
            kept = await self._queue.renew(tickets)
            # What this process did not renew in time, since it was frozen or cut off, is another's.
            await self._stop(
                [self._tickets[t] for t in tickets if t in self._tickets and t not in kept]
            )

    async def _wait_for_room(self) -> None:
        while self._draining or not self._free():
            self._freed.clear()
            await self._freed.wait()

    def _serve(self, ticket: Ticket) -> None:
        if ticket in self._tickets:
            return
        task = asyncio.create_task(self._run_ticket(ticket), name=f"mission {ticket.mission_id}")
        self._tickets[ticket] = task
        self._hub.own(ticket.mission_id)
        task.add_done_callback(lambda done: self._release(ticket, done))

    def _release(self, ticket: Ticket, task: asyncio.Task[None]) -> None:
        del self._tickets[ticket]
        self._hub.disown(ticket.mission_id)
        self._freed.set()
        if not task.cancelled() and (error := task.exception()):
            # Its claim runs out, and the mission is taken up again.
            _logger.error("mission_crashed", mission=ticket.mission_id, exc_info=error)

    async def _run_ticket(self, ticket: Ticket) -> None:
        await self._persist(lambda: self._run_mission(ticket))

    async def _run_mission(self, ticket: Ticket) -> None:
        """Run the mission of a ticket until it has ended or the claim is another's."""
        entries = (ticket.entry_id, ticket.replaces)
        while (claim := await self._log.acquire(ticket.mission_id, *entries)) is not None:
            try:
                run = await self._start_run(claim)
            except StoreUnavailable:
                raise
            except Exception:
                if claim.claims <= MAX_CLAIMS:
                    raise
                # Not even its graph can be read: nobody can end it node by node.
                _logger.exception("mission_unreadable", mission=ticket.mission_id)
                await self._log.bury(claim)
                break
            self.runs[ticket.mission_id] = run
            try:
                ended = await run.run()
            finally:
                # Handed over elsewhere, it may have come back under another entry meanwhile.
                if self.runs.get(ticket.mission_id) is run:
                    del self.runs[ticket.mission_id]
            if ended:
                break
            if not await self._queue.holds(ticket):
                return
        await self._queue.done(ticket)
