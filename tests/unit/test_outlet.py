"""What is written to a client goes out whole and in order, and who is slow is waited for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, StreamClosedError

from handlers import outlet as outlet_module
from handlers.outlet import Outlet

# More than the kernel holds for a client that reads nothing.
MUCH = b"x" * 8_000_000


class Ends:
    """The two ends of a connection: our stream, and the socket of a client."""

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        self.stream = IOStream(ours)
        self.outlet = Outlet(self.stream)

    async def read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            got += await asyncio.to_thread(self.client.recv, size - len(got))
        return got


@pytest.fixture
def ends(io_loop: IOLoop) -> Iterator[Ends]:
    async def make() -> Ends:
        return Ends()

    made = io_loop.run_sync(make)
    yield made
    made.client.close()
    made.stream.close()


@pytest.mark.gen_test
async def test_what_the_client_takes_is_gone_at_once(ends: Ends):
    assert ends.outlet.put(b"hello ")
    assert ends.outlet.put(b"world")
    assert not ends.outlet.blocked
    assert await ends.read(11) == b"hello world"


@pytest.mark.gen_test
async def test_what_the_client_does_not_take_is_waited_for_and_stays_in_order(ends: Ends):
    assert not ends.outlet.put(MUCH)
    assert not ends.outlet.put(b"end")
    assert ends.outlet.blocked
    drained = asyncio.create_task(ends.outlet.drained())
    assert await ends.read(len(MUCH) + 3) == MUCH + b"end"
    await drained
    assert ends.outlet.put(b"again")
    assert await ends.read(5) == b"again"


@pytest.mark.gen_test
async def test_client_that_takes_nothing_is_given_up_and_others_of_its_connection_still_wait(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
):
    ends.outlet.put(MUCH)
    other = asyncio.create_task(ends.outlet.drained())
    await asyncio.sleep(0)
    monkeypatch.setattr(outlet_module, "WRITE_SECONDS", 0.02)
    with pytest.raises(TimeoutError):
        await ends.outlet.drained()
    assert not other.done()
    ends.outlet.close()
    with pytest.raises(StreamClosedError):
        await other


@pytest.mark.gen_test
async def test_client_that_has_left_takes_nothing_and_raises_only_where_it_is_waited_for(
    ends: Ends,
):
    ends.client.close()
    while ends.outlet.put(b"hello"):
        await asyncio.sleep(0.001)
    with pytest.raises(StreamClosedError):
        await ends.outlet.drained()
    ends.stream.close()
    assert not ends.outlet.put(b"hello")
    with pytest.raises(StreamClosedError):
        await ends.outlet.drained()
