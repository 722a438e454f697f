"""The head of a streamed answer goes out with what there is to tell, or soon without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from handlers import body as body_module
from handlers.body import StreamedBody, chunk
from vision.missions.events import Batch

NEVER = 3600.0
PATIENCE = 10.0

ONE, TWO = Batch(1, [b'{"n":1}'], final=False), Batch(2, [b'{"n":2}'], final=True)

# More than the kernel holds for a client that reads nothing.
MUCH = Batch(1, [b"x" * 8_000_000], final=False)


class Handler(RequestHandler):
    """An answer whose batches the test writes."""

    def initialize(self, began: asyncio.Future[Handler]) -> None:
        self._began = began
        self.told_all = asyncio.Event()

    async def get(self) -> None:
        interval = float(self.get_query_argument("interval"))
        sse = "sse" in self.request.headers.get("Accept", "")
        with closing(StreamedBody(self, sse=sse, interval=interval)) as self.streamed:
            self._began.set_result(self)
            await self.told_all.wait()


class Client:
    """A client's end of the connection, and the body that is written to it."""

    def __init__(self, handler: Handler, reader: asyncio.StreamReader) -> None:
        self.handler = handler
        self.streamed = handler.streamed
        self.reader = reader

    async def head(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(size)

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(0.05):
                await self.reader.read(1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def asking(
    interval: float = NEVER, version: str = "1.1", accept: str = "*/*"
) -> AsyncIterator[Client]:
    began: asyncio.Future[Handler] = asyncio.get_running_loop().create_future()
    listening, port = bind_unused_port()
    server = HTTPServer(Application([("/", Handler, {"began": began})]))
    server.add_socket(listening)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        request = f"GET /?interval={interval} HTTP/{version}\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
        writer.write(request.encode())
        handler = await began
        yield Client(handler, reader)
        handler.told_all.set()
    finally:
        writer.close()
        server.stop()
        await server.close_all_connections()


@pytest.fixture(autouse=True)
def late_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "HEAD_SECONDS", NEVER)


@pytest.mark.gen_test
async def test_head_waits_for_the_first_batch_and_goes_out_before_it():
    async with asking() as client:
        assert await client.hears_nothing()
        assert not client.streamed.begun
        assert client.streamed.write(ONE)
        assert client.streamed.begun
        assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.streamed.write(TWO)
        told = chunk(ONE.ndjson) + chunk(TWO.ndjson)
        assert await client.read(len(told)) == told


@pytest.mark.gen_test
async def test_head_goes_out_by_itself_where_no_batch_comes_soon(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(body_module, "HEAD_SECONDS", 0.0)
    async with asking() as client:
        await client.head()
        assert client.streamed.begun
        assert client.streamed.write(ONE)
        assert await client.read(len(chunk(ONE.ndjson))) == chunk(ONE.ndjson)


@pytest.mark.gen_test
async def test_heartbeat_does_not_go_before_the_head():
    async with asking(interval=0.001) as client:
        assert await client.hears_nothing()
        client.streamed.write(ONE)
        await client.head()
        told = chunk(ONE.ndjson) + chunk(b" ")
        assert await client.read(len(told)) == told


@pytest.mark.parametrize("batches", [[], [ONE]])
@pytest.mark.gen_test
async def test_no_timer_outlives_the_answer(monkeypatch: pytest.MonkeyPatch, batches: list[Batch]):
    monkeypatch.setattr(body_module, "HEAD_SECONDS", 0.01)
    async with asking(interval=0.01) as client:
        for batch in batches:
            client.streamed.write(batch)
        client.streamed.close()
        for batch in batches:
            await client.head()
            await client.read(len(chunk(batch.ndjson)))
        assert await client.hears_nothing()


@pytest.mark.gen_test
async def test_answer_without_a_batch_has_its_head_all_the_same():
    async with asking() as client:
        client.handler.told_all.set()
        assert b"Content-Length: 0\r\n" in await client.head()


@pytest.mark.gen_test
async def test_client_of_http_1_0_gets_no_chunks():
    async with asking(version="1.0") as client:
        client.streamed.write(ONE)
        client.streamed.write(TWO)
        client.handler.told_all.set()
        assert b"chunked" not in await client.head()
        assert await client.reader.read() == ONE.ndjson + TWO.ndjson


@pytest.mark.gen_test
async def test_first_batch_that_the_client_does_not_take_is_waited_for():
    async with asking(accept="sse") as client:
        assert not client.streamed.write(MUCH)
        drained = asyncio.create_task(client.streamed.drained())
        await asyncio.sleep(0)
        assert not client.streamed.write(TWO)
        assert not drained.done()
        await client.head()
        told = chunk(MUCH.sse) + chunk(TWO.sse)
        assert await client.read(len(told)) == told
        await drained


def test_chunks_say_their_length_and_nothing_makes_none():
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert chunk(b"") == b""
