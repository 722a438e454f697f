"""Idle WebSockets on one process: memory for each, and processor time while nothing happens.

    python -m benchmarks.idle [--connections 10000] [--seconds 30]

Opens the connections from this process over loopback, lets them be, answers pings, and reads what
the server process used. 10,000 connections need a descriptor limit above that on both sides.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
from pathlib import Path

from benchmarks.processes import use_of
from tests.processes import ServerProcess

AT_ONCE = 200  # handshakes in flight: below the backlog of the server's port


async def connect(port: int, gate: asyncio.Semaphore) -> asyncio.StreamWriter:
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        writer.write(
            b"GET /api/completion/ws HTTP/1.1\r\nHost: x\r\nAuthorization: Vision chat\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise RuntimeError(head.decode())
    asyncio.get_running_loop().create_task(answer_pings(reader, writer))
    return writer


async def answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Frames here are pings of the server, shorter than 126 bytes (RFC 6455, section 5.5.2)."""
    while True:
        _, length = await reader.readexactly(2)
        payload = await reader.readexactly(length)
        writer.write(bytes((0x8A, 0x80 | length)) + b"\0\0\0\0" + payload)


async def measure(connections: int, seconds: float) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.to_thread(ServerProcess, Path(folder) / "data")
        with server:
            await asyncio.sleep(3)  # the embedded model loads
            before = use_of(server.pid)
            gate = asyncio.Semaphore(AT_ONCE)
            sockets = await asyncio.gather(
                *(connect(server.port, gate) for _ in range(connections))
            )
            opened = use_of(server.pid) - before
            start = use_of(server.pid)
            await asyncio.sleep(seconds)
            idle = use_of(server.pid) - start
            print(f"connections                 {len(sockets):>10,}")
            print(f"memory for each             {opened.memory_kb / connections:>10.1f} kB")
            print(f"processor time to open each {opened.cpu / connections * 1e6:>10.0f} us")
            print(f"processor while idle        {idle.cpu / seconds * 100:>10.1f} % of a core")
            for socket in sockets:
                socket.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    asyncio.run(measure(options.connections, options.seconds))


if __name__ == "__main__":
    main()
