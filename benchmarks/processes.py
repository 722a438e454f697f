"""Processes of a benchmark: started, waited for, measured, and ended with their children.

The law: a process is ready when its constructor returns and gone when its block is left. What it
has used is what the kernel counts, for itself and for all that it has started.

Source: proc(5), /proc/[pid]/stat fields 4, 14 and 15, /proc/[pid]/status VmRSS, /proc/stat idle and
iowait of each cpu; clock_getcpuclockid(3), whose number for another process is made as in Linux's
include/linux/posix-timers.h; sched_setaffinity(2), which is of one thread.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TICKS = os.sysconf("SC_CLK_TCK")

# Of a process's clock: CPUCLOCK_SCHED, which counts what its threads ran, those that ended too.
CPU_CLOCK = 2

# LiteLLM's proxy imports for some 10 s on a machine of two cores.
START_SECONDS = 90.0
END_SECONDS = 15.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Use:
    """Seconds of processor time (user and system) since the start, and resident kilobytes."""

    cpu: float
    memory_kb: int

    def __add__(self, other: Use) -> Use:
        return Use(self.cpu + other.cpu, self.memory_kb + other.memory_kb)

    def __sub__(self, before: Use) -> Use:
        return Use(self.cpu - before.cpu, self.memory_kb - before.memory_kb)


def use_of(pid: int) -> Use:
    """What the process has used until now; its children are not counted."""
    fields = _stat(pid)
    status = Path(f"/proc/{pid}/status").read_text()
    memory = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0")
    return Use((int(fields[11]) + int(fields[12])) / TICKS, int(memory.split()[1]))


def children_of(pid: int) -> dict[int, str]:
    """All descendants that run, with the names of their programs."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(_stat(int(folder.name))[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    found: dict[int, str] = {}
    new = {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= {child: Path(f"/proc/{child}/comm").read_text().strip() for child in new}
    return found


def uses_of(pid: int) -> tuple[Use, Use]:
    """Of the process itself, and of all its descendants together."""
    return use_of(pid), sum(map(use_of, children_of(pid)), Use(0.0, 0))


def exact_cpu(pid: int) -> float:
    """As `use_of(pid).cpu`, in nanoseconds instead of ticks of 10 ms: for short measurements."""
    return time.clock_gettime(~pid << 3 | CPU_CLOCK)


def exact_cpus(pid: int) -> tuple[float, float]:
    """Of the process itself, and of all its descendants together."""
    return exact_cpu(pid), sum(map(exact_cpu, children_of(pid)))


def idle_seconds() -> float:
    """That the cores which this process may use had nothing to do, since the machine's start."""
    ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    return sum(int(line[4]) + int(line[5]) for line in lines if line[0] in ours) / TICKS


@contextmanager
def confined(cores: Collection[int]) -> Iterator[None]:
    """This process and all that it has started share these cores meanwhile."""
    before = os.sched_getaffinity(0)
    _confine(cores)
    try:
        yield
    finally:
        _confine(before)


def _confine(cores: Collection[int]) -> None:
    for pid in [os.getpid(), *children_of(os.getpid())]:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Running:
    """A program that listens on `port` of loopback; its output goes to `log`."""

    def __init__(
        self,
        argv: Sequence[str],
        port: int,
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.port = port
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                argv,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **(environ or {})},
                cwd=folder,
                start_new_session=True,
            )
        try:
            self._wait(log)
        except BaseException:
            self.__exit__()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def use(self) -> Use:
        """What it and its workers have used until now."""
        pids = [self.pid, *children_of(self.pid)]
        return sum(map(use_of, pids), Use(0.0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self.pid, signal.SIGTERM)
            self._process.wait(END_SECONDS)
        with suppress(ProcessLookupError):  # nothing of the group may be left
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(END_SECONDS)

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(POLL_SECONDS)
            else:
                return
        written = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self._process.args!r} did not come up:\n{written}")
