"""Whatever events say: their frames decode back to them, and a cursor cuts them where it stands.

The decoders are not ours: `json`, the SSE rules as the standard words them, and the frame parser
of the `websockets` library.
"""

from __future__ import annotations

import json

from hypothesis import given, strategies as st
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from vision.missions.events import (
    Batch,
    Event,
    Failure,
    MissionFinished,
    MissionStatus,
    NodeEnded,
    NodeRestarted,
    NodeStatus,
    Outcome,
    Token,
    encode,
)

_TEXT = st.text(st.characters(codec="utf-8"))
_ENDS = st.sampled_from([status for status in NodeStatus if Outcome(status).final])
_FAILURES = st.none() | st.builds(Failure, _TEXT, _TEXT)
_OUTCOMES = st.builds(Outcome, _ENDS, content=_TEXT, error=_FAILURES)

events: st.SearchStrategy[Event] = st.one_of(
    st.builds(Token, _TEXT, _TEXT, _TEXT, st.none() | _TEXT, st.integers(0, 2**40)),
    st.builds(NodeRestarted, _TEXT, st.just(Outcome(NodeStatus.RUNNING))),
    st.builds(NodeEnded, _TEXT, _OUTCOMES),
    st.builds(MissionFinished, st.sampled_from(MissionStatus)),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    first = draw(st.integers(1, 10**9))
    encoded = [encode(event, "M", seq) for seq, event in enumerate(draw(st.lists(events)), first)]
    return Batch(first, encoded, final=draw(st.booleans()))


def read_sse(stream: bytes) -> list[tuple[str, str]]:
    """WHATWG HTML, section 9.2.6: (last event id, data) of every event that is dispatched."""
    told, last_id, data = [], "", []
    text = stream.decode().replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        if not line and data:
            told.append((last_id, "\n".join(data)))
            data = []
        elif name == "id":
            last_id = value.removeprefix(" ")
        elif name == "data":
            data.append(value.removeprefix(" "))
    return told


def read_websocket(stream: bytes) -> list[bytes]:
    client = Protocol(CLIENT)
    client.receive_data(stream)
    frames = client.events_received()
    assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in frames)
    return [frame.data for frame in frames]


@given(events, st.integers(1, 2**53))
def test_event_is_one_line_that_has_its_mission_and_its_number(event: Event, seq: int):
    encoded = encode(event, "M", seq)
    assert not {b"\n", b"\r"} & {encoded[i : i + 1] for i in range(len(encoded))}
    document = json.loads(encoded)
    assert (document["missionId"], document["seq"]) == ("M", seq)
    if isinstance(event, Token):
        assert document["choices"][0]["text"] == event.text


@given(batches())
def test_ndjson_decodes_back_to_the_events(batch: Batch):
    assert batch.ndjson.count(b"\n") == len(batch.events)
    assert tuple(batch.ndjson.splitlines()) == batch.events


@given(batches())
def test_sse_decodes_back_to_the_events_and_their_numbers(batch: Batch):
    numbered = enumerate(batch.events, batch.first)
    assert read_sse(batch.sse) == [(str(seq), event.decode()) for seq, event in numbered]


@given(batches())
def test_websocket_frames_decode_back_to_the_events(batch: Batch):
    assert tuple(read_websocket(batch.websocket)) == batch.events


@given(batches(), st.integers(0, 10**9 + 50))
def test_batch_after_a_cursor_is_exactly_what_is_behind_it(batch: Batch, cursor: int):
    rest = batch.after(cursor)
    numbered = list(enumerate(batch.events, batch.first))
    assert list(enumerate(rest.events, rest.first)) == [
        (seq, event) for seq, event in numbered if seq > cursor
    ]
    assert rest.final == batch.final


@given(batches(), st.lists(st.integers(0, 10)))
def test_batch_cut_at_any_cursors_joins_to_itself(batch: Batch, steps: list[int]):
    seen: list[bytes] = []
    for step in steps:
        cursor = batch.first - 1 + len(seen)
        seen += batch.after(cursor).events[:step]
    seen += batch.after(batch.first - 1 + len(seen)).events
    assert tuple(seen) == batch.events
