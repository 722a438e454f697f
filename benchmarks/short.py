"""Case 5: short requests, many clients at once, each on a connection that it keeps.

    python -m benchmarks.short [--full]

The law: the peer is a Tornado handler that returns the very bytes that our server answered, so what
lies between the two is what our server does for them: the key, the schema, Valkey, the database,
the upstream. The prompt is sent to the upstream itself, too. A client sends its next request when
the last answer is whole, which it knows by its length.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast

from benchmarks.alone import main
from benchmarks.asking import ask, ask_json
from benchmarks.bare_tornado import bare
from benchmarks.costs import Cost, Meter
from benchmarks.lateness import beside
from benchmarks.load import chat_body, http_request, question
from benchmarks.report import Row, Table
from benchmarks.rig import MODEL, Size, one_node, rig
from tests.processes import ServerProcess

CLIENTS = 32

# Seconds for each pair of request and server; a quick run still has a thousand requests in it.
SECONDS = {Size.QUICK: 1.2, Size.FULL: 8.0}

# So much before that is not measured: connections open, caches fill.
WARM_UP_SECONDS = 0.3

# An answer takes milliseconds; a client that waits longer was answered something else.
ANSWER_SECONDS = 20.0

KEY = {"Authorization": "Vision chat"}
GOOD = b"HTTP/1.1 200 "


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it goes out, and the body that our server answers it with."""

    name: str
    request: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Subject:
    """A server that runs."""

    name: str
    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Found:
    """What the requests of one kind took, and how many seconds each of them did."""

    cost: Cost
    taken: Sequence[float]

    def row(self, direct: Sequence[float]) -> Row:
        """Its figures, beside those of the upstream itself where that can be asked the same."""
        cost = self.cost
        figures = {
            "requests/s": cost.units / cost.wall,
            "CPU us/request": cost.each,
            "children us/request": cost.children / cost.units * 1e6,
            **beside("answer", self.taken, direct),
        }
        return Row(cost.subject, figures)


class _Client(asyncio.Protocol):
    """One connection. An answer that is not good ends it with an error."""

    def __init__(self, request: bytes, size: int, until: float) -> None:
        self._request = request
        self._size = size
        self._until = until
        self._missing = size
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.taken: list[float] = []  # seconds, for each request

    def itself(self) -> Self:
        """The factory that asyncio wants."""
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._missing = self._size
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing == self._size and not data.startswith(GOOD):
            self._fail(f"answered: {data[:300]!r}")
            return
        self._missing -= len(data)
        if self._missing < 0:
            self._fail("an answer is longer than the first one was")
        elif self._missing == 0:
            now = time.perf_counter()
            self.taken.append(now - self._sent)
            if now < self._until:
                self._send()
            else:
                self._transport.close()

    def _fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(RuntimeError(why))
        self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self.over.done():
            return
        if self._missing:
            self.over.set_exception(ConnectionError("closed in the middle of an answer"))
        else:
            self.over.set_result(None)


async def run(size: Size) -> list[Table]:
    """A table for each request."""
    with rig() as made, made.server() as server:
        asked = [
            await _single_prompt(server),
            await _mission_query(server),
            await _order_query(server),
        ]
        ours = Subject("ours", server.pid, server.port)
        found = [[await _measure(ours, each.request, size)] for each in asked]
        with bare(made.folder) as peer:
            same = Subject("bare Tornado, same bytes", peer.pid, peer.port)
            for each, measured in zip(asked, found, strict=True):
                await ask(peer.port, "/answer", each.body, "PUT")
                measured.append(await _measure(same, each.request, size))
        itself = Subject("upstream, direct", made.upstream.pid, made.upstream.port)
        found[0].insert(0, await _measure(itself, _direct(), size))
    return [_table(asked[0], found[0], found[0][0].taken), *map(_table, asked[1:], found[1:])]


def _table(asked: Asked, found: Sequence[Found], direct: Sequence[float] = ()) -> Table:
    title = f"{CLIENTS} clients, one request after another"
    return Table(f"short: {asked.name}", title, [each.row(direct) for each in found])


def _direct() -> bytes:
    """The prompt as the upstream wants it, without a stream."""
    body = json.dumps(chat_body(1, 0) | {"stream": False}).encode()
    return http_request("POST", "/v1/chat/completions", body, {})


async def _single_prompt(server: ServerProcess) -> Asked:
    path = "/api/completion/single-prompt-request"
    messages = [{"role": "user", "content": question(1, 0)}]
    body = {"model": MODEL, "params": {"messages": messages}}
    return await _asked("single-prompt-request", server, "POST", path, body)


async def _mission_query(server: ServerProcess) -> Asked:
    started = await ask_json(server.port, "/api/completion/generate", one_node(5, 0))
    mission_id = started["data"]["missionId"]
    watch = f"/api/completion/st/mission?missionId={mission_id}"
    await ask(server.port, watch)  # until it has ended
    path = f"/api/completion/mission-query?missionId={mission_id}"
    return await _asked("mission-query", server, "GET", path)


async def _order_query(server: ServerProcess) -> Asked:
    order = {
        "type": "alipay",
        "uid": "u1",
        "productId": "demo-day",
        "productLine": "demo",
        "price": 100,
        "totalPrice": 100,
        "amount": 100,
        "promoCode": "",
    }
    made = await ask_json(server.port, "/api/payment/order/create", order)
    path = f"/api/payment/order/query-by-id?orderId={made['data']['orderId']}"
    return await _asked("order query", server, "GET", path)


async def _asked(
    name: str, server: ServerProcess, method: str, path: str, body: object = None
) -> Asked:
    """Ask once, to know what it is answered with."""
    data = b"" if body is None else json.dumps(body).encode()
    answer = await ask(server.port, path, data or None, method)
    return Asked(name, http_request(method, path, data, KEY), answer)


async def _measure(subject: Subject, request: bytes, size: Size) -> Found:
    length = await _length(subject.port, request)
    await _load(subject.port, request, length, WARM_UP_SECONDS)
    meter = Meter(subject.pid)
    taken = await _load(subject.port, request, length, SECONDS[size])
    return Found(meter.cost(subject.name, len(taken)), taken)


async def _length(port: int, request: bytes) -> int:
    """Bytes of a whole answer, head and body: the same each time, since what it says is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if found is None or not head.startswith(GOOD):
        raise RuntimeError(f"answered: {head!r}")
    return len(head) + int(found[1])


async def _load(port: int, request: bytes, length: int, seconds: float) -> list[float]:
    """All clients for so long; how long each of their requests took."""
    loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
    clients = [_Client(request, length, until) for _ in range(CLIENTS)]
    async with asyncio.timeout(seconds + ANSWER_SECONDS):
        for client in clients:
            await loop.create_connection(client.itself, "127.0.0.1", port)
        await asyncio.gather(*(client.over for client in clients))
    return [each for client in clients for each in client.taken]


if __name__ == "__main__":
    main(run)
