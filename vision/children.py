"""Child processes and the data folder they work in.

The law: a child process never outlives the server, and two servers never share a data folder.

Three locks of the kernel keep it, since nothing else survives `kill -9`:

- `lock` belongs to the server. It is held by an open file that no child inherits, so it is free
  exactly when the server is gone. A second server is refused.
- `<name>.lock` belongs to the child of that name. The child inherits the locked open file and the
  server closes its own copy, so it is free exactly when the child, and all that the child forked,
  is gone. Nobody starts a second Valkey on files that a first one still writes.
- A child dies with its server (`launcher.py`). Where the kernel has no such signal, or the child
  does not obey, the next server finds the lock held, waits, and kills the holder: the pid in the
  file can be believed, because only a living holder keeps the lock.

Each child leads a session of its own: Ctrl-C in the terminal reaches the server alone, which then
ends its children in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vision.errors import SettingError

# A server that was just killed needs some milliseconds to be gone; a second server is told no
# after this time, which nobody feels.
HANDOVER = 1.0
# A child that got its death signal closes its files first. Valkey syncs at most the last second of
# writes to disk: a slow disk takes some hundred milliseconds for it.
SETTLE = 3.0
# The kernel ends a process that was killed at once, unless it waits for a disk.
KILLED = 5.0
# flock has no wait with a timeout, so we look again: often enough that nobody feels it.
LOOK_AGAIN = 0.02
# What an error quotes of a child's log: the end, as much as fits on a screen.
LAST_LINES = 8
LAST_BYTES = 4096

LAUNCHER = Path(__file__).with_name("launcher.py")


class DataFolder:
    """The folder of one running server, locked for as long as the process lives."""

    def __init__(self, path: Path) -> None:
        """Make the folder and lock it.

        Raises SettingError when it cannot be used or another server has it. Blocks at most
        `HANDOVER` seconds: it is called before the event loop runs.
        """
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _open_lock(self.path / "lock")
            self._take()
        except OSError as error:
            raise SettingError(f"data-dir: {self.path} cannot be used: {error.strerror}") from error

    def _take(self) -> None:
        deadline = time.monotonic() + HANDOVER
        while not _try_lock(self._lock):
            if time.monotonic() > deadline:
                holder = _holder(self._lock)
                os.close(self._lock)
                raise SettingError(
                    f"data-dir: {self.path} belongs to a running server (process {holder})"
                )
            time.sleep(LOOK_AGAIN)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def log(self, name: str) -> Path:
        """The file that holds what the child of this name has written since it started."""
        return self.path / f"{name}.log"

    def close(self) -> None:
        """Let another server have the folder. The children must have ended."""
        os.close(self._lock)


@dataclass(frozen=True, slots=True)
class Program:
    """What a child runs.

    `name` names its lock and its log; `argv` begins with an absolute path; `death` is the signal
    it gets when the server dies; `grace` is how many seconds it has to end after SIGTERM.
    """

    name: str
    argv: tuple[str, ...]
    death: signal.Signals
    grace: float


class Child:
    """One running program. Its owner awaits `wait` or calls `stop`."""

    def __init__(self, process: asyncio.subprocess.Process, program: Program, log: Path) -> None:
        self._process = process
        self._program = program
        self._log = log

    @classmethod
    async def start(cls, folder: DataFolder, program: Program) -> Child:
        """Start the program once no earlier one of the same name is left.

        Its stderr goes to the log, emptied first; stdin and stdout are pipes (`tell`, `hear`).
        Raises SettingError when an earlier child cannot be ended, OSError when there is no room
        for a process or a file.
        """
        lock = await _claim(folder.path / f"{program.name}.lock")
        try:
            with _emptied(folder.log(program.name)) as log:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-E", str(LAUNCHER)),
                    *(str(os.getpid()), str(lock), str(int(program.death))),
                    *program.argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    cwd=folder.path,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        finally:
            os.close(lock)
        return cls(process, program, folder.log(program.name))

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, line: bytes) -> None:
        """Write one short line to the child's stdin."""
        assert self._process.stdin is not None  # noqa: S101 - start() asked for the pipe
        self._process.stdin.write(line + b"\n")

    async def hear(self) -> bytes:
        """One line from the child's stdout; empty when it closed it or ended."""
        assert self._process.stdout is not None  # noqa: S101 - start() asked for the pipe
        return await self._process.stdout.readline()

    async def wait(self) -> int:
        """Until it ends: its exit status, negative for a signal."""
        return await self._process.wait()

    async def stop(self) -> int:
        """Ask it to end, kill it after its grace, and return its exit status."""
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._program.grace):
                return await self._process.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """End it and all that it forked, now."""
        if self._process.returncode is None:
            _kill_session(self.pid)
        async with asyncio.timeout(KILLED):
            return await self._process.wait()

    def last_lines(self) -> str:
        """The end of its log, for an error or a log line; empty if it said nothing."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_BYTES))
                text = log.read().decode(errors="replace")
        except OSError as error:
            # It explains another failure, which must not be hidden behind this one.
            return f"({self._log} cannot be read: {error.strerror})"
        return "\n".join(text.strip().splitlines()[-LAST_LINES:])

    def _signal(self, number: signal.Signals) -> None:
        # Not Popen.send_signal: it polls, and would take the exit status from asyncio's watcher.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


async def _claim(path: Path) -> int:
    """The locked, open lock file of a child, once nobody else holds it."""
    lock = _open_lock(path)
    try:
        await _free(lock, path)
        # The pid of an earlier child must not be believed for the new one.
        os.ftruncate(lock, 0)
    except BaseException:
        os.close(lock)
        raise
    return lock


async def _free(lock: int, path: Path) -> None:
    if await _locked(lock, SETTLE):
        return
    holder = _holder(lock)
    # Without a pid the holder is the launcher in its first milliseconds: it ends itself.
    if holder:
        _kill_session(holder)
    if not await _locked(lock, KILLED):
        raise SettingError(f"data-dir: process {holder} holds {path} and does not end")


async def _locked(lock: int, within: float) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not _try_lock(lock):
        if loop.time() > deadline:
            return False
        await asyncio.sleep(LOOK_AGAIN)
    return True


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: int) -> int:
    """The pid in a lock file, 0 when it is not written yet."""
    return int(os.pread(lock, 32, 0) or b"0")


def _kill_session(leader: int) -> None:
    # The number of a group stays taken while one of its members lives: this hits no stranger.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _emptied(path: Path) -> BinaryIO:
    # Append, because some programs open their log a second time by its name.
    log = path.open("ab")
    log.truncate(0)
    return log
