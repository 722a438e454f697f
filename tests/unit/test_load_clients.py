"""The clients of the benchmarks count every token, wherever the network cuts the stream."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given, strategies as st

from benchmarks.load import Calls, Stream, Target, _Client

END = b"[DONE]"
STREAM = b'data: " tok"\n\n' * 5 + b'data: " to"\n\ndata: " tok tok"\n\ndata: [DONE]\n\n'


class Wire(asyncio.Transport):
    """Takes the request, and remembers being closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """The request."""

    def close(self) -> None:
        self.closed = True


@given(cuts=st.sets(st.integers(1, len(STREAM) - 1)))
def test_tokens_and_the_end_are_found_however_the_stream_is_cut(cuts: set[int]) -> None:
    wire = Wire()
    client = _Client(Target(0, b"", END))
    client.connection_made(wire)
    places = [0, *sorted(cuts), len(STREAM)]
    for begin, end in itertools.pairwise(places):
        client.data_received(STREAM[begin:end])
    assert client.stream.tokens == 7
    assert client.stream.complete
    assert wire.closed


def test_calls_keep_their_connections_and_wait_for_nobody_else() -> None:
    opened, closed, answer = 0, 0, b"HTTP/1.1 200 OK\r\n\r\n4\r\n tok\r\n0\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened, closed
        opened += 1
        while await reader.readline():
            writer.write(answer)
        writer.close()
        await writer.wait_closed()
        closed += 1

    async def ask() -> list[Stream]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            calls = Calls(Target(server.sockets[0].getsockname()[1], b"ask\n", b"\r\n0\r\n\r\n"))
            together = await asyncio.gather(*(calls.ask() for _ in range(3)))
            found = [*together, *[await calls.ask() for _ in range(5)]]
            calls.close()
            while closed < opened:
                await asyncio.sleep(0)
            return found

    found = asyncio.run(ask())

    assert opened == 3
    assert all(each.complete and each.tokens == 1 for each in found)
