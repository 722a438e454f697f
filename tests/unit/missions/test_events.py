"""The one wire form of an event, and the frames in which a batch of them goes out."""

from __future__ import annotations

import json

import msgspec
import pytest

from vision.missions.events import (
    Batch,
    Failure,
    MissionFinished,
    MissionStatus,
    NodeEnded,
    NodeRestarted,
    NodeStatus,
    Outcome,
    Token,
    encode,
    text_frame,
)

TOKEN = Token("2", "text-davinci-003", "Hi\n", None, 1683214696)


def ended(status: NodeStatus, **fields: object) -> bytes:
    return encode(NodeEnded("2", Outcome(status, "text", **fields)), "M", 7)


def test_token_has_the_documented_fields_first_and_ours_after_them():
    assert encode(TOKEN, "M", 1) == (
        b'{"id":"2","object":"text_completion","created":1683214696,'
        b'"choices":[{"text":"Hi\\n","index":0,"logprobs":null,"finish_reason":null}],'
        b'"model":"text-davinci-003","missionId":"M","seq":1,"type":"token"}'
    )


def test_last_event_has_the_documented_fields_first():
    assert encode(MissionFinished(MissionStatus.SUCCEEDED), "M", 9) == (
        b'{"missionId":"M","statue":"[FINISHED]","seq":9,"type":"finished","status":"succeeded"}'
    )


def test_restart_says_which_text_is_void():
    assert encode(NodeRestarted("2", Outcome(NodeStatus.RUNNING)), "M", 3) == (
        b'{"id":"2","statue":"[RESTARTED]","missionId":"M","seq":3,"type":"restarted"}'
    )


@pytest.mark.parametrize(
    ("status", "statue", "kind"),
    [
        (NodeStatus.SUCCEEDED, "[DONE]", "done"),
        (NodeStatus.CACHED, "[DONE]", "done"),
        (NodeStatus.DEFAULTED, "[DONE]", "done"),
        (NodeStatus.FAILED, "[ERROR]", "failed"),
        (NodeStatus.SKIPPED, "[SKIPPED]", "skipped"),
        (NodeStatus.CANCELLED, "[CANCELLED]", "cancelled"),
    ],
)
def test_end_of_a_node_by_its_status(status: NodeStatus, statue: str, kind: str):
    expected = {"id": "2", "statue": statue, "missionId": "M", "seq": 7, "type": kind}
    assert json.loads(ended(status)) == expected | {"status": status.value}


def test_end_of_a_node_has_its_times_if_it_was_begun():
    assert ended(NodeStatus.SUCCEEDED, started=5, finished=9) == (
        b'{"id":"2","statue":"[DONE]","missionId":"M","seq":7,"type":"done",'
        b'"status":"succeeded","startedAt":5,"finishedAt":9}'
    )
    assert "finishedAt" not in json.loads(ended(NodeStatus.SKIPPED, finished=9))


def test_end_of_a_node_has_its_usage_and_its_error_if_there_are_any():
    told = json.loads(
        ended(NodeStatus.FAILED, usage={"total_tokens": 3}, error=Failure("code", "why"))
    )
    assert told["usage"] == {"total_tokens": 3}
    assert told["error"] == {"code": "code", "message": "why"}


def test_every_final_node_status_has_a_wire_form():
    for status in NodeStatus:
        if Outcome(status).final:
            ended(status)


def test_only_the_first_two_statuses_are_not_final():
    assert [status for status in MissionStatus if not status.final] == ["queued", "running"]
    assert [s for s in NodeStatus if not Outcome(s).final] == ["waiting", "running"]


def test_stored_outcome_comes_back_as_it_was():
    outcome = Outcome(
        NodeStatus.FAILED, "x", 2, 1, 2, "stop", {"total_tokens": 1}, Failure("c", "m")
    )
    stored = msgspec.json.encode(outcome)
    assert msgspec.json.decode(stored, type=Outcome) == outcome


def test_batch_knows_its_numbers_and_its_size():
    batch = Batch(5, [b"aa", b"b"], final=False)
    assert (batch.first, batch.last, batch.size) == (5, 6, 3)
    assert (Batch(5, [], final=False).last, Batch(5, [], final=True).size) == (4, 0)


def test_batch_in_each_framing():
    batch = Batch(5, [b'{"a":1}', b"{}"], final=True)
    assert batch.ndjson == b'{"a":1}\n{}\n'
    assert batch.sse == b'id: 5\ndata: {"a":1}\n\nid: 6\ndata: {}\n\n'
    assert batch.websocket == b'\x81\x07{"a":1}\x81\x02{}'


def test_frames_are_made_once():
    batch = Batch(1, [b"{}"], final=False)
    assert batch.ndjson is batch.ndjson
    assert batch.sse is batch.sse
    assert batch.websocket is batch.websocket


def test_batch_is_itself_to_a_client_that_has_seen_nothing_of_it():
    batch = Batch(5, [b"a", b"b"], final=True)
    assert batch.after(0) is batch
    assert batch.after(4) is batch


def test_batch_after_its_end_is_empty_and_goes_on_from_there():
    rest = Batch(5, [b"a", b"b"], final=True).after(6)
    assert (rest.first, rest.last, rest.events, rest.final) == (7, 6, (), True)


@pytest.mark.parametrize(
    ("length", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_length_of_a_text_frame_takes_the_shortest_form(length: int, head: bytes):
    assert text_frame(b"x" * length) == head + b"x" * length
