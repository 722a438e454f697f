"""How long one call of a model may wait: its timeouts, counted from its start.

The law: every wait has a bound, and the error names the one that was reached. While a stream is
read, one timer serves all of its waits: it looks at the bound that is due now when it rings, and
goes on to the next, so that a token costs no timer of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import TypeVar

from aiohttp import StreamReader

from vision.models.call import Timeouts
from vision.models.failures import timeout_error

_T = TypeVar("_T")


class Deadlines:
    """The timeouts of one call. For one event loop; `close` it when the call is over."""

    def __init__(self, name: str, timeouts: Timeouts) -> None:
        self._name = name
        self._timeouts = timeouts
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._due = math.inf  # of the wait that goes on
        self._which = "total"
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, awaited: Awaitable[_T], which: str) -> _T:
        """Awaits until the bound `which` (`first_token`, `idle` or `total`) or the total one.

        Raises ModelError `upstream_timeout` with the one that was reached.
        """
        self._begin(which)
        due, self._due = self._due, math.inf
        try:
            async with asyncio.timeout_at(due) as bound:
                return await awaited
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise self._error() from error

    async def read(self, content: StreamReader, which: str) -> bytes:
        """All that has arrived, as soon as there is something; nothing at the end.

        Raises ModelError `upstream_timeout`, after which the content cannot be read any more.
        """
        self._begin(which)
        if self._timer is None or self._due < self._timer.when():
            self._ring_at(content, self._due)
        try:
            return await content.readany()
        finally:
            self._due = math.inf

    def close(self) -> None:
        """Let go of the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, which: str) -> None:
        timeouts = self._timeouts
        self._due, self._which = self._start + timeouts.total, "total"
        due = self._due
        if which == "first_token":
            due = self._start + timeouts.first_token
        elif which == "idle":
            due = self._loop.time() + timeouts.idle
        if due < self._due:
            self._due, self._which = due, which

    def _ring_at(self, content: StreamReader, when: float) -> None:
        self.close()
        self._timer = self._loop.call_at(when, self._ring, content)

    def _ring(self, content: StreamReader) -> None:
        self._timer = None
        if self._due > self._loop.time():
            # Of a wait that is over. When none goes on, the next one sets the timer again.
            if self._due < math.inf:
                self._ring_at(content, self._due)
        else:
            content.set_exception(self._error())

    def _error(self) -> Exception:
        return timeout_error(self._which, getattr(self._timeouts, self._which), name=self._name)
