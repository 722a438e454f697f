"""One server process and two, behind nginx, under the same load.

    python -m benchmarks.pair [--full]

The law: all but the number of processes is the same: nginx as `deploy/nginx.conf` has it, one
Valkey that the processes share, and room for as many missions as there are streams, divided among
them. Whoever has room takes the next mission, so that it often runs in another process than the one
its client is connected to; what that costs is in the figures.

Two processes can carry twice as much only where each has a core of its own, and nginx, Valkey, the
upstream and the clients have theirs. So beside the tokens that were carried stands what limited
them, and "capacity": what the processes would carry if nothing but their own processor time did.

- `long`: streams of many tokens that come as fast as they can. A token costs little then, and on
  two cores one process with all around it fills them both.
- `short`: missions of few tokens. Most of the cost is the mission, which is the servers'.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.alone import main
from benchmarks.load import Stream, Target, stream, streams
from benchmarks.peers import Unusable, reason
from benchmarks.processes import Running, children_of, exact_cpu, free_port, idle_seconds
from benchmarks.report import ROOT, Row, Table
from benchmarks.rig import Rig, Size, generate, rig
from tests.nginx import configuration
from tests.processes import ServerProcess
from tests.valkeys import Valkey

STREAMS = 200

# How long the clients ask, of one load: some thousand missions at least.
SECONDS = {Size.QUICK: 1.5, Size.FULL: 20.0}

# Of each stream, once before a load is measured: pools are filled, and code is specialised.
WARM_UP_TOKENS = 20

# From this part on a core has no time left: the rest goes by in switching and waiting.
BUSY = 0.9

# The addresses of the servers in it, one a line, all with the same options.
SERVERS = re.compile(r"(?:^ *server 127\.0\.0\.1:\d+(?P<options> .*)\n)+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """So many tokens for each of the streams."""

    name: str
    tokens: int


LOADS = (Load("long", 200), Load("short", 5))


@dataclass(frozen=True, slots=True)
class Site:
    """All that takes part: each server by itself, and the others by name."""

    front: int
    servers: tuple[ServerProcess, ...]
    others: Mapping[str, Callable[[], float]]

    def used(self) -> Used:
        """Until now."""
        servers = tuple(exact_cpu(server.pid) for server in self.servers)
        return Used(servers, {name: used() for name, used in self.others.items()}, idle_seconds())


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of processor time."""

    servers: tuple[float, ...]
    others: Mapping[str, float]
    idle: float  # of all our cores: what nobody used

    def __sub__(self, before: Used) -> Used:
        pairs = zip(self.servers, before.servers, strict=True)
        others = {name: now - before.others[name] for name, now in self.others.items()}
        return Used(tuple(now - then for now, then in pairs), others, self.idle - before.idle)

    @property
    def total(self) -> float:
        return sum(self.servers) + sum(self.others.values())


@dataclass(frozen=True, slots=True)
class Found:
    """What one load brought and used."""

    tokens: int
    lost: int
    wall: float
    used: Used

    @property
    def carried(self) -> float:
        """Tokens a second."""
        return self.tokens / self.wall

    @property
    def capacity(self) -> float:
        """Tokens a second of all processes, each with a core to itself and nothing to wait for."""
        return len(self.used.servers) * self.tokens / sum(self.used.servers)

    def row(self, subject: str, one: Found) -> Row:
        """Its figures beside those of one process."""
        others = {
            f"{name} us/token": used / self.tokens * 1e6 for name, used in self.used.others.items()
        }
        figures = {
            "tokens/s": self.carried,
            "to one": self.carried / one.carried,
            "servers us/token": sum(self.used.servers) / self.tokens * 1e6,
            **others,
            "cores busy": self.used.total / self.wall,
            "capacity tokens/s": self.capacity,
            "capacity to one": self.capacity / one.capacity,
        }
        lost = f"{self.lost} tokens lost; " if self.lost else ""
        return Row(subject, figures, lost + self._limit())

    def _limit(self) -> str:
        """What had no time left."""
        cores = len(os.sched_getaffinity(0))
        unused = (1 - BUSY) * cores * self.wall
        servers, everything = sum(self.used.servers), self.used.total
        if everything > cores * self.wall - unused:
            rest = 1 - servers / everything
            return f"limit: all {cores} cores, of which {rest:.0%} went to others than the servers"
        if max(self.used.servers) > BUSY * self.wall:
            return "limit: the core of a server process"
        if self.used.idle < unused:
            return "limit: other work on this machine took the cores"
        return "limit: no core; the processes waited for each other"


async def run(size: Size) -> list[Table]:
    """One process and two, each started once for both loads."""
    with rig() as made:
        try:
            one, two = [await _measure(made, processes, size) for processes in (1, 2)]
        except Unusable as error:
            return [Table("pair", "two processes behind nginx", [Row("all", note=reason(error))])]
    return [
        Table(
            f"pair-{load.name}",
            f"{STREAMS} streams at once x {load.tokens} tokens, again and again",
            [alone.row("one process", alone), both.row("two processes", alone)],
        )
        for load, alone, both in zip(LOADS, one, two, strict=True)
    ]


async def _measure(made: Rig, processes: int, size: Size) -> list[Found]:
    with _site(made, processes) as site:
        return [await _load(site, load, SECONDS[size]) for load in LOADS]


@contextmanager
def _site(made: Rig, processes: int) -> Iterator[Site]:
    """So many servers, the Valkey that they share, and nginx before them."""
    program = _nginx_program()
    with ExitStack() as stack:
        folder = made.folder / f"pair-{processes}"
        valkey = stack.enter_context(Valkey(folder / "valkey", "--appendonly", "yes"))
        flags = (f"--redis-url={valkey.url}", f"--room={STREAMS // processes}")
        servers = tuple(stack.enter_context(made.server(*flags)) for _ in range(processes))
        front = free_port()
        config = folder / "nginx.conf"
        config.write_text(_config(folder, front, [server.port for server in servers]))
        argv = [program, "-e", "stderr", "-p", str(folder), "-c", str(config)]
        nginx = stack.enter_context(Running(argv, front, folder / "nginx.log"))
        others = {
            "nginx": lambda: sum(map(exact_cpu, [nginx.pid, *children_of(nginx.pid)])),
            "Valkey": lambda: exact_cpu(valkey.process.pid),
            "upstream": lambda: exact_cpu(made.upstream.pid),
            "clients": time.process_time,
        }
        yield Site(front, servers, others)


def _config(folder: Path, front: int, ports: Sequence[int]) -> str:
    """The site as it is shipped, with these addresses."""
    site = (ROOT / "deploy" / "nginx.conf").read_text()
    site = SERVERS.sub(lambda found: _servers(ports, found["options"]), site)
    site = site.replace("listen 8080", f"listen 127.0.0.1:{front}")
    return configuration(folder, site)


def _servers(ports: Sequence[int], options: str) -> str:
    return "".join(f"  server 127.0.0.1:{port}{options}\n" for port in ports)


def _nginx_program() -> str:
    """Debian keeps it where only root looks for programs."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        raise Unusable("the package nginx of the system is not installed")
    return program


def _target(site: Site, tokens: int) -> Target:
    """A mission, asked for at nginx."""
    return replace(generate(site.servers[0], tokens, 0), port=site.front)


async def _load(site: Site, load: Load, seconds: float) -> Found:
    """Each client asks again as soon as it has its answer, until the time is over."""
    await streams(_target(site, WARM_UP_TOKENS), STREAMS)
    target = _target(site, load.tokens)
    found: list[Stream] = []
    before, begin = site.used(), time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - begin < seconds:
            found.append(await stream(target))

    await asyncio.gather(*(client() for _ in range(STREAMS)))
    used, wall = site.used() - before, time.perf_counter() - begin
    tokens = sum(each.tokens for each in found)
    return Found(tokens, len(found) * load.tokens - tokens, wall, used)


if __name__ == "__main__":
    main(run)
