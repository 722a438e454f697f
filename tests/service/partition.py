"""A TCP proxy that a test can cut, to take a network away from one process.

The law: while it is cut nothing passes, and what was connected is gone; when it is healed new
connections pass again.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on a port of its own and passes everything on to another."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._cut = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Nothing passes from now on."""
        with self._lock:
            self._cut = True
            for each in self._open:
                close(each)
            self._open.clear()

    def heal(self) -> None:
        """New connections pass again."""
        with self._lock:
            self._cut = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cut()
        close(self._listener)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open |= {near, far}
            for source, drain in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass, args=(source, drain), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, drain: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                drain.sendall(data)
        except OSError:
            pass  # cut, or closed by either end
        with self._lock:
            self._open -= {source, drain}
        for each in (source, drain):
            close(each)


def close(each: socket.socket) -> None:
    """Wakes whoever reads from it, too."""
    with contextlib.suppress(OSError):  # it was not connected, or is no longer
        each.shutdown(socket.SHUT_RDWR)
    each.close()
