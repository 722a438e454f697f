"""One server process and two, behind nginx, under the same load.

    python -m benchmarks.pair [--full]

The law: all but the number of processes is the same: nginx as `deploy/nginx.conf` has it, one
Valkey that the processes share, and room for all streams in each process. Both sites stand side by
side and are asked in turns, so that what else the machine does meets both. In each turn the
upstream itself is read by as many clients, on the same cores.

nginx, Valkey, the upstream and the clients need cores, too. So one process with all of these is
measured on one core, and on as many cores as two processes have. Beside the tokens that were
carried stands what limited them, and "capacity": what the processes would carry if nothing but
their own processor time did.

- `long`: streams of many tokens that come as fast as they can. A token costs little then, and on
  two cores one process with all around it fills them both.
- `short`: missions of few tokens. Most of the cost is the mission, which is the servers'.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

from benchmarks.alone import main
from benchmarks.installed import ROOT, Unusable, nginx_program, reason
from benchmarks.lateness import Tokens, columns
from benchmarks.load import Stream, Target, stream, streams
from benchmarks.processes import (
    Running,
    children_of,
    confined,
    exact_cpu,
    free_port,
    idle_seconds,
)
from benchmarks.report import Row, Table
from benchmarks.rig import Rig, Size, generate, rig
from tests.nginx import configuration
from tests.processes import ServerProcess
from tests.valkeys import Valkey

STREAMS = 200

# How long the clients ask in one turn: some thousand missions.
SECONDS = {Size.QUICK: 1.5, Size.FULL: 5.0}

# How long the upstream itself is read: some hundred streams.
DIRECT_SECONDS = {Size.QUICK: 0.5, Size.FULL: 1.5}

# Turns of each site with each load: a machine's speed changes within seconds.
TURNS = {Size.QUICK: 1, Size.FULL: 4}

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
class Subject:
    """A site, with the cores that it and all around it share."""

    name: str
    site: Site
    cores: Sequence[int]


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

    def __add__(self, more: Used) -> Used:
        pairs = zip(self.servers, more.servers, strict=True)
        others = {name: used + more.others[name] for name, used in self.others.items()}
        return Used(tuple(a + b for a, b in pairs), others, self.idle + more.idle)

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
    cores: int
    came: Tokens
    direct: Tokens  # as a reader of the upstream itself has them on the same cores

    def __add__(self, more: Found) -> Found:
        tokens, lost = self.tokens + more.tokens, self.lost + more.lost
        wall, used, came = self.wall + more.wall, self.used + more.used, self.came + more.came
        direct = self.direct + more.direct
        return Found(tokens, lost, wall, used, self.cores, came, direct)

    @property
    def carried(self) -> float:
        """Tokens a second."""
        return self.tokens / self.wall

    @property
    def capacity(self) -> float:
        """Tokens a second of all processes, each with a core to itself and nothing to wait for."""
        return len(self.used.servers) * self.tokens / sum(self.used.servers)

    def row(self, subject: str, one: Found) -> Row:
        """Its figures beside those of one process, and of the upstream itself."""
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
            **columns(self.came, self.direct),
        }
        lost = f"{self.lost} tokens lost; " if self.lost else ""
        return Row(subject, figures, lost + self._limit())

    def _limit(self) -> str:
        """What had no time left."""
        unused = (1 - BUSY) * self.cores * self.wall
        servers, everything = sum(self.used.servers), self.used.total
        if everything > self.cores * self.wall - unused:
            rest = 1 - servers / everything
            return f"limit: the processor, of which {rest:.0%} went to others than the servers"
        if max(self.used.servers) > BUSY * self.wall:
            return "limit: the core of a server process"
        if self.used.idle < unused:
            return "limit: other work on this machine took the cores"
        return "limit: no core; the processes waited for each other"


async def run(size: Size) -> list[Table]:
    """Both sites with each load, in turns."""
    with rig() as made, ExitStack() as stack:
        try:
            one, two = [stack.enter_context(_site(made, processes)) for processes in (1, 2)]
        except Unusable as error:
            return [Table("pair", "two processes behind nginx", [Row("all", note=reason(error))])]
        cores = sorted(os.sched_getaffinity(0))
        subjects = (
            Subject("one process, one core", one, cores[:1]),
            Subject("one process, two cores", one, cores[:2]),
            Subject("two processes, two cores", two, cores[:2]),
        )
        return [await _compare(made, subjects, load, size) for load in LOADS]


async def _compare(made: Rig, subjects: Sequence[Subject], load: Load, size: Size) -> Table:
    turns = [
        [await _turn(made, subject, load, size) for subject in subjects] for _ in range(TURNS[size])
    ]
    found = [reduce(add, each) for each in zip(*turns, strict=True)]
    rows = [each.row(subject.name, found[0]) for subject, each in zip(subjects, found, strict=True)]
    title = f"{STREAMS} streams at once x {load.tokens} tokens, again and again"
    return Table(f"pair-{load.name}", title, rows)


async def _turn(made: Rig, subject: Subject, load: Load, size: Size) -> Found:
    with confined(subject.cores):
        return await _load(made, subject.site, load, size)


@contextmanager
def _site(made: Rig, processes: int) -> Iterator[Site]:
    """So many servers, the Valkey that they share, and nginx before them."""
    program = nginx_program()
    with ExitStack() as stack:
        folder = made.folder / f"pair-{processes}"
        valkey = stack.enter_context(Valkey(folder / "valkey", "--appendonly", "yes"))
        flags = (f"--redis-url={valkey.url}", f"--room={STREAMS}")
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


def _target(site: Site, tokens: int) -> Target:
    """A mission, asked for at nginx."""
    return replace(generate(site.servers[0], tokens, 0), port=site.front)


async def _load(made: Rig, site: Site, load: Load, size: Size) -> Found:
    """The upstream itself, then a site that is warm, asked by all clients."""
    direct = await _ask(made.direct(load.tokens, 0), DIRECT_SECONDS[size])
    await streams(_target(site, WARM_UP_TOKENS), STREAMS)
    before, begin = site.used(), time.perf_counter()
    found = await _ask(_target(site, load.tokens), SECONDS[size])
    used, wall = site.used() - before, time.perf_counter() - begin
    tokens = sum(each.tokens for each in found)
    lost, cores = len(found) * load.tokens - tokens, len(os.sched_getaffinity(0))
    return Found(tokens, lost, wall, used, cores, Tokens.of(found), Tokens.of(direct))


async def _ask(target: Target, seconds: float) -> list[Stream]:
    """Each client asks again as soon as it has its answer, until the time is over."""
    found: list[Stream] = []
    begin = time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - begin < seconds:
            found.append(await stream(target))

    await asyncio.gather(*(client() for _ in range(STREAMS)))
    return found


if __name__ == "__main__":
    main(run)
