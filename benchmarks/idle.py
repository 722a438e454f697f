"""Case 6: WebSockets on which nothing happens: memory for each, and processor time for all.

    python -m benchmarks.idle [--full]

The law: only pings go over the connections, and all of them are answered. The measured seconds are
whole ping intervals, so that each connection's share of pings is in them. In full there are 10,000
connections, which need a descriptor limit above that on both sides.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.alone import main
from benchmarks.bare_tornado import bare
from benchmarks.processes import uses_of
from benchmarks.report import Row, Table
from benchmarks.rig import Size, rig
from benchmarks.sockets import AT_ONCE, OPEN_SECONDS, handshake, raise_descriptor_limit


@dataclass(frozen=True, slots=True)
class Load:
    """So many connections, pinged every so many seconds, and watched for so many."""

    connections: int
    ping: int
    seconds: int


LOADS = {
    Size.QUICK: Load(2_000, ping=3, seconds=3),
    Size.FULL: Load(10_000, ping=15, seconds=30),  # the default of `ping-interval`, twice
}


async def run(size: Size) -> Table:
    """Ours, and a Tornado that keeps nothing for a connection but the connection."""
    raise_descriptor_limit()
    load = LOADS[size]
    with rig() as made:
        with made.server(f"--ping-interval={load.ping}") as server:
            rows = [await _row("ours", server.pid, server.port, "/api/completion/ws", load)]
        with bare(made.folder, load.ping) as peer:
            subject = "bare Tornado"
            rows.append(await _row(subject, peer.pid, peer.port, "/write_message", load))
    title = f"{load.connections:,} WebSockets, a ping each {load.ping} s"
    return Table("idle", title, rows)


async def _row(subject: str, pid: int, port: int, path: str, load: Load) -> Row:
    (before, beside), gate = uses_of(pid), asyncio.Semaphore(AT_ONCE)
    begin = time.perf_counter()
    async with asyncio.timeout(OPEN_SECONDS), asyncio.TaskGroup() as group:
        opening = [group.create_task(_open(port, path, gate)) for _ in range(load.connections)]
    sockets = [task.result() for task in opening]
    wall, (opened, beside_opened) = time.perf_counter() - begin, uses_of(pid)
    await asyncio.sleep(load.seconds)
    idle, beside_idle = (
        now - then for now, then in zip(uses_of(pid), (opened, beside_opened), strict=True)
    )
    lost = sum(socket.pinged.done() for socket in sockets)
    for socket in sockets:
        socket.close()
    cost, beside_cost = opened - before, beside_opened - beside
    figures = {
        "kB/connection": cost.memory_kb / load.connections,
        "children kB/connection": beside_cost.memory_kb / load.connections,
        "CPU us to open": cost.cpu / load.connections * 1e6,
        "children us to open": beside_cost.cpu / load.connections * 1e6,
        "wall s to open all": wall,
        "CPU % of a core, idle": idle.cpu / load.seconds * 100,
        "children % of a core, idle": beside_idle.cpu / load.seconds * 100,
    }
    return Row(subject, figures, f"{lost} connections were lost" if lost else "")


@dataclass(frozen=True, slots=True)
class Socket:
    """An open connection, and the task that answers its pings: done when it is lost."""

    writer: asyncio.StreamWriter
    pinged: asyncio.Task[None]

    def close(self) -> None:
        self.pinged.cancel()
        self.writer.close()


async def _open(port: int, path: str, gate: asyncio.Semaphore) -> Socket:
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(handshake(path))
        head = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in head:
        raise RuntimeError(head.decode())
    return Socket(writer, asyncio.create_task(_answer_pings(reader, writer)))


async def _answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Frames here are pings of the server, shorter than 126 bytes (RFC 6455, section 5.5.2)."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            _, length = await reader.readexactly(2)
            payload = await reader.readexactly(length)
            writer.write(bytes((0x8A, 0x80 | length)) + b"\0\0\0\0" + payload)


if __name__ == "__main__":
    main(run)
