"""The decoder gives the same events however the bytes were cut."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from vision.errors import ModelError
from vision.models.sse import SseDecoder, SseEvent

newlines = st.sampled_from(["\n", "\r", "\r\n"])
# No CR or LF: those end a line. All else may stand in one.
line_text = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20
)


def decode(reads, flush=False):
    decoder = SseDecoder()
    events = [event for read in reads for event in decoder.feed(read)]
    return events + (decoder.flush() if flush else [])


@st.composite
def streams(draw):
    """The bytes of a stream, with every line end the standard knows."""
    text = draw(st.sampled_from(["", "\ufeff"]))
    for lines in draw(st.lists(st.lists(line_text, min_size=1, max_size=3), max_size=5)):
        if draw(st.booleans()):
            text += ": a comment" + draw(newlines)
        for line in lines:
            text += "data: " + line + draw(newlines)
        text += draw(newlines)
    return text.encode()


@given(streams(), st.data())
def test_where_the_reads_end_makes_no_difference(whole, data):
    once = decode([whole])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=10)))
    reads = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert decode(reads) == once
    assert decode([bytes([byte]) for byte in whole]) == once


@given(st.lists(st.lists(line_text, min_size=1, max_size=3), max_size=5), newlines)
def test_what_was_written_comes_back(events, newline):
    text = "".join(
        "".join(f"data: {line}{newline}" for line in lines) + newline for lines in events
    )
    assert [event.data.decode() for event in decode([text.encode()])] == [
        "\n".join(lines) for lines in events
    ]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: a\n\n", [SseEvent("message", b"a")]),
        (b"data:a\n\n", [SseEvent("message", b"a")]),
        (b"data:  a\n\n", [SseEvent("message", b" a")]),
        (b"data\n\n", [SseEvent("message", b"")]),
        (b"event: error\ndata: a\n\n", [SseEvent("error", b"a")]),
        (b"event: error\n\ndata: a\n\n", [SseEvent("message", b"a")]),
        (b": comment\n\nid: 7\nretry: 10\nunknown: x\ndata: a\n\n", [SseEvent("message", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [SseEvent("message", b"a")]),
        (b"data: \xef\xbb\xbf\n\n", [SseEvent("message", b"\xef\xbb\xbf")]),
        (
            b"data: a\x0b\x0c\x1c\xc2\x85\xe2\x80\xa8b\n\n",
            [SseEvent("message", b"a\x0b\x0c\x1c\xc2\x85\xe2\x80\xa8b")],
        ),
        (b"data: a\n", []),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_the_forms_of_the_standard(text, events):
    assert decode([text]) == events


@pytest.mark.parametrize("text", [b"data: a", b"data: a\n", b"data: a\r", b"data: a\n\n"])
def test_the_end_of_the_stream_ends_the_last_event(text):
    assert decode([text], flush=True) == [SseEvent("message", b"a")]


def test_flush_of_an_empty_stream_gives_nothing():
    assert decode([], flush=True) == []
    assert decode([b"\xef\xbb"], flush=True) == []


@pytest.mark.parametrize("piece", [b"x", b"x\ndata:", b"x\r\ndata: "])
def test_an_event_over_the_bound_is_refused_however_it_comes(piece):
    decoder = SseDecoder(max_event_bytes=100)
    decoder.feed(b"data: ")

    def feed_much():
        for _ in range(200):
            decoder.feed(piece)

    with pytest.raises(ModelError) as caught:
        feed_much()
    assert caught.value.code == "upstream_garbled"


def test_the_bound_is_for_one_event_not_for_the_stream():
    decoder = SseDecoder(max_event_bytes=100)
    for _ in range(100):
        assert len(decoder.feed(b"data: " + b"x" * 40 + b"\n")) == 0
        assert len(decoder.feed(b"\n")) == 1
