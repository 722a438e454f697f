"""An owner for work that has to outlast what began it.

The law: no task is left alone. What a connection leaves to be done after its end is kept here,
its failure is logged, and the server waits for it, for a bounded time, before it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

_logger = structlog.get_logger(__name__)

# Such work is a few Redis calls; what takes longer than this waits for a Redis that is away.
CLOSE_SECONDS: Final = 5.0


class Background:
    """Tasks that nobody waits for, each with a name for the log."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run it to its end; a failure is logged."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("background_failed", task=task.get_name(), exc_info=error)

    async def close(self) -> None:
        """Wait for what runs; what does not end in time is cancelled."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
