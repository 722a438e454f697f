"""Who is connected: counted, bounded for each key, and told when the server ends.

The law: every stream and every socket is here from its beginning to its end, under the name of who
opened it (a hash of the key, never the key). One key cannot use up a process. When the server
ends, each is dismissed, and a request that is being answered is waited for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vision.errors import LimitReached


@dataclass(frozen=True, slots=True)
class Limits:
    """For one key, on this process: streams and sockets at once, and what sockets subscribe to."""

    connections: int
    subscriptions: int


class Connections:
    """The open requests, streams and sockets of this process."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._requests: set[object] = set()
        self._dismissals: set[Callable[[], None]] = set()
        self._changed = asyncio.Event()
        self.connections: Counter[str] = Counter()  # by owner
        self.subscriptions: Counter[str] = Counter()  # by owner

    @contextmanager
    def hold(self, owner: str, dismiss: Callable[[], None]) -> Iterator[None]:
        """Count a stream or socket while it is open. Raises `LimitReached`."""
        if self.connections[owner] >= self._limits.connections:
            raise LimitReached(
                f"this key has {self._limits.connections} streams and sockets open; close one first"
            )
        self.connections[owner] += 1
        self._dismissals.add(dismiss)
        try:
            yield
        finally:
            self._dismissals.discard(dismiss)
            self._less(self.connections, owner)
            self._changed.set()

    @contextmanager
    def subscribe(self, owner: str) -> Iterator[None]:
        """Count a subscription of a socket while it lasts. Raises `LimitReached`."""
        if self.subscriptions[owner] >= self._limits.subscriptions:
            raise LimitReached(
                f"this key has {self._limits.subscriptions} subscriptions; end one first"
            )
        self.subscriptions[owner] += 1
        try:
            yield
        finally:
            self._less(self.subscriptions, owner)

    def enter(self, request: object) -> None:
        """A request is being answered."""
        self._requests.add(request)

    def leave(self, request: object) -> None:
        """It was, or its client has gone."""
        self._requests.discard(request)
        self._changed.set()

    def dismiss(self) -> None:
        """Tell every stream and socket that the server ends."""
        for dismiss in list(self._dismissals):
            dismiss()

    async def quiet(self) -> None:
        """Until no request is being answered, and every stream and socket has ended."""
        while self._requests or self._dismissals:
            self._changed.clear()
            await self._changed.wait()

    @staticmethod
    def _less(counter: Counter[str], owner: str) -> None:
        counter[owner] -= 1
        if not counter[owner]:
            del counter[owner]  # names that come once must not stay for ever
