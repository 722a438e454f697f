"""The clients of the benchmarks count every token, wherever the network cuts the stream."""

from __future__ import annotations

import asyncio
import itertools
from typing import cast

from hypothesis import given, strategies as st

from benchmarks.load import Target, _Client

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
    client = _Client(Target(0, b"", END), cast("asyncio.Future", None))
    client.connection_made(wire)
    places = [0, *sorted(cuts), len(STREAM)]
    for begin, end in itertools.pairwise(places):
        client.data_received(STREAM[begin:end])
    assert client.stream.tokens == 7
    assert client.stream.complete
    assert wire.closed
