"""Keep one child process running.

The law: while the server runs, a child that ends is started again: at once after a steady run, and
ever more slowly, but without giving up, when it fails again and again. One task owns the child;
`stop` ends the task first and the child after it, and leaves neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from vision.children import Child
from vision.errors import VisionError

# Doubled with each failure: the first retry is not felt, and a child that fails for good (disk
# full, model file gone) costs one start every eight seconds until somebody mends it.
FIRST_DELAY = 0.25
LONGEST_DELAY = 8.0
# A child that ran this long had started well; its end is an accident, not a pattern.
STEADY = 10.0

_log = structlog.stdlib.get_logger(__name__)


def delay(failures: int) -> float:
    """Seconds to wait before the next start, after so many failures in a row."""
    if failures == 0:
        return 0.0
    # The exponent is bounded too: after a night of failures 2**n would not fit a float.
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 10))


class Supervisor:
    """Owns one child, through all its restarts.

    `launch` starts it and returns when it is usable, or raises a VisionError and leaves nothing
    behind.
    """

    def __init__(self, name: str, launch: Callable[[], Awaitable[Child]]) -> None:
        self._name = name
        self._launch = launch
        self._up = asyncio.Event()
        self._child: Child | None = None
        self._owner: asyncio.Task[NoReturn] | None = None
        self.failure: VisionError | None = None

    @property
    def ready(self) -> bool:
        """Whether the child is usable, as far as we have noticed."""
        return self._up.is_set()

    @property
    def pid(self) -> int | None:
        """The process of the child, None while there is none."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Launch the child and keep it running; a first launch that fails raises."""
        first = await self._launch()
        self._rise(first)
        self._owner = asyncio.create_task(self._keep(first), name=f"keep {self._name}")

    def start_soon(self) -> None:
        """Keep the child running, the first launch included; returns at once."""
        self._owner = asyncio.create_task(self._keep(None), name=f"keep {self._name}")

    async def up(self, within: float) -> None:
        """Until the child is usable. Raises TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            await self._up.wait()

    async def stop(self) -> None:
        """End the supervision and the child."""
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.wait({self._owner})
        self._up.clear()
        if self._child is not None:
            await self._child.stop()
            self._child = None
        if self._owner is not None and not self._owner.cancelled():
            self._owner.result()

    def _rise(self, child: Child) -> None:
        self._child = child
        self._up.set()

    async def _keep(self, child: Child | None) -> NoReturn:
        failures = 0
        while True:
            child = child or await self._try_launch()
            ran = await self._watch(child) if child else 0.0
            child = None
            failures = 0 if ran >= STEADY else failures + 1
            await asyncio.sleep(delay(failures))

    async def _try_launch(self) -> Child | None:
        try:
            child = await self._launch()
        except VisionError as error:
            self.failure = error
            _log.warning("child did not start", child=self._name, error=str(error))
            return None
        self._rise(child)
        return child

    async def _watch(self, child: Child) -> float:
        """Until the child ends: how many seconds it ran."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        status = await child.wait()
        self._up.clear()
        self._child = None
        _log.error("child ended", child=self._name, status=status, last=child.last_lines())
        return loop.time() - began
