"""Events: the numbered facts of a mission, and their one wire form.

The law: an event is encoded once. The bytes that go into the mission's log are the bytes that every
subscriber gets, on every transport; a `Batch` frames them for a transport at the first demand and
keeps the frame. The documented fields come first and in the documented order; what was added
(`missionId`, `seq`, `type`, ...) follows them.

    {"id":"2","object":"text_completion","created":1683214696,
     "choices":[{"text":"Hi","index":0,"logprobs":null,"finish_reason":null}],
     "model":"text-davinci-003","missionId":"...","seq":1,"type":"token"}
    {"id":"2","statue":"[DONE]","missionId":"...","seq":2,"type":"done","status":"succeeded",
     "startedAt":...,"finishedAt":...,"usage":{...}}
    {"id":"3","statue":"[ERROR]", ... "type":"failed","error":{"code":"...","message":"..."}}
    {"id":"4","statue":"[SKIPPED]", ... "type":"skipped","error":{...}}
    {"id":"5","statue":"[CANCELLED]", ... "type":"cancelled"}
    {"id":"2","statue":"[RESTARTED]", ... "type":"restarted"}     drop the partial text of node 2
    {"missionId":"...","statue":"[FINISHED]","seq":9,"type":"finished","status":"succeeded"}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cached_property

import msgspec


class NodeStatus(StrEnum):
    """Where a node is. All but the first two are final."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CACHED = "cached"  # unchanged since the base mission, whose result it keeps
    DEFAULTED = "defaulted"  # it failed, and its `onError` text stands in for its result
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class MissionStatus(StrEnum):
    """Where a mission is. All but the first two are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"  # every node has a result, its own or its default text
    FAILED = "failed"  # a node has none; those that did not need it have theirs
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self not in _UNFINISHED


# Made once: to name a member of an enumeration is a look into its class, and these are asked for
# every token and node.
_UNENDED = (NodeStatus.WAITING, NodeStatus.RUNNING)
_UNFINISHED = (MissionStatus.QUEUED, MissionStatus.RUNNING)
_WITH_RESULT = (NodeStatus.SUCCEEDED, NodeStatus.CACHED, NodeStatus.DEFAULTED)


class Failure(msgspec.Struct, frozen=True):
    """Why something failed: a stable code and a sentence."""

    code: str
    message: str


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a node, kept beside the log and shown by mission-query.

    `started` and `finished` are milliseconds since the epoch, in UTC; `attempts` counts the calls.
    """

    status: NodeStatus
    content: str = ""
    attempts: int = 0
    started: int | None = None
    finished: int | None = None
    finish_reason: str | None = None
    usage: dict[str, int] | None = None
    error: Failure | None = None
    fingerprint: str = ""  # of model, parameters and rendered prompt: see `graph.fingerprint`

    @property
    def has_result(self) -> bool:
        """Whether dependents can go on with its content."""
        return self.status in _WITH_RESULT

    @property
    def final(self) -> bool:
        return self.status not in _UNENDED


class Token(msgspec.Struct, frozen=True):
    """Text that a node's model produced; several tokens that arrived together may share one."""

    node_id: str
    model: str
    text: str
    finish_reason: str | None
    created: int  # seconds since the epoch


class NodeStarted(msgspec.Struct, frozen=True):
    """A node's first attempt began. Kept beside the log, not part of it: subscribers see tokens."""

    node_id: str
    outcome: Outcome


class NodeRestarted(msgspec.Struct, frozen=True):
    """The node begins again: the text that subscribers have of it is void."""

    node_id: str
    outcome: Outcome


class NodeEnded(msgspec.Struct, frozen=True):
    """A node has its final outcome."""

    node_id: str
    outcome: Outcome


class MissionFinished(msgspec.Struct, frozen=True):
    """The last event of a mission."""

    status: MissionStatus


Event = Token | NodeRestarted | NodeEnded | MissionFinished

_STATUE = {
    NodeStatus.SUCCEEDED: ("[DONE]", "done"),
    NodeStatus.CACHED: ("[DONE]", "done"),
    NodeStatus.DEFAULTED: ("[DONE]", "done"),
    NodeStatus.FAILED: ("[ERROR]", "failed"),
    NodeStatus.SKIPPED: ("[SKIPPED]", "skipped"),
    NodeStatus.CANCELLED: ("[CANCELLED]", "cancelled"),
}

_encoder = msgspec.json.Encoder()


def encode(event: Event, mission_id: str, seq: int) -> bytes:
    """The wire form of one event: a JSON object without a line feed in it."""
    match event:
        case Token():
            return _encode_token(event, mission_id, seq)
        case NodeEnded():
            return _encode_node_ended(event, mission_id, seq)
        case NodeRestarted():
            restarted = _NodeEvent(event.node_id, "[RESTARTED]", mission_id, seq, "restarted")
            return _encoder.encode(restarted)
        case MissionFinished():
            fields = {"missionId": mission_id, "statue": "[FINISHED]", "seq": seq}
            return _encoder.encode(fields | {"type": "finished", "status": event.status})


class _Choice(msgspec.Struct):
    """As the documented API has it."""

    text: str
    index: int
    logprobs: None
    finish_reason: str | None


class _TokenEvent(msgspec.Struct):
    """A token event; the order of the fields is that of the wire."""

    id: str
    object: str
    created: int
    choices: tuple[_Choice]
    model: str
    missionId: str  # noqa: N815 -- the name on the wire
    seq: int
    type: str


class _NodeEvent(msgspec.Struct, omit_defaults=True):
    """What became of a node; the order of the fields is that of the wire."""

    id: str
    statue: str
    missionId: str  # noqa: N815 -- as above
    seq: int
    type: str
    status: NodeStatus | None = None
    startedAt: int | None = None  # noqa: N815
    finishedAt: int | None = None  # noqa: N815
    usage: dict[str, int] | None = None
    error: Failure | None = None


def _encode_token(event: Token, mission_id: str, seq: int) -> bytes:
    choices = (_Choice(event.text, 0, None, event.finish_reason),)
    return _encoder.encode(
        _TokenEvent(
            event.node_id,
            "text_completion",
            event.created,
            choices,
            event.model,
            mission_id,
            seq,
            "token",
        )
    )


def _encode_node_ended(event: NodeEnded, mission_id: str, seq: int) -> bytes:
    outcome = event.outcome
    statue, kind = _STATUE[outcome.status]
    return _encoder.encode(
        _NodeEvent(
            event.node_id,
            statue,
            mission_id,
            seq,
            kind,
            outcome.status,
            outcome.started,
            outcome.finished if outcome.started is not None else None,
            outcome.usage,
            outcome.error,
        )
    )


class Batch:
    """Consecutive events of one mission, encoded: what the hub hands to subscribers.

    `first` is the number of the first event. `final` says that the mission's last event is in it.
    """

    def __init__(self, first: int, events: Sequence[bytes], *, final: bool) -> None:
        self.first = first
        self.events = tuple(events)
        self.final = final

    @property
    def last(self) -> int:
        return self.first + len(self.events) - 1

    @cached_property
    def size(self) -> int:
        """Bytes of all events together: what a queue that holds the batch is charged."""
        return sum(map(len, self.events))

    @cached_property
    def ndjson(self) -> bytes:
        """One JSON object a line."""
        return b"\n".join((*self.events, b""))

    @cached_property
    def sse(self) -> bytes:
        """Server-sent events, with the event number as `id` (WHATWG HTML, section 9.2.6)."""
        numbered: Iterable[tuple[int, bytes]] = enumerate(self.events, self.first)
        return b"".join(b"id: %d\ndata: %b\n\n" % pair for pair in numbered)

    @cached_property
    def websocket(self) -> bytes:
        """One text message an event, as frames to be written as they are."""
        return b"".join(map(text_frame, self.events))

    def after(self, cursor: int) -> Batch:
        """The part that a client with this cursor has not seen; itself when that is all of it."""
        seen = cursor - self.first + 1
        if seen <= 0:
            return self
        return Batch(self.first + seen, self.events[seen:], final=self.final)


def text_frame(text: bytes) -> bytes:
    """A server's unfragmented, unmasked text message (RFC 6455, section 5.2)."""
    length = len(text)
    if length < 126:
        return bytes((0x81, length)) + text
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2) + text
    return b"\x81\x7f" + length.to_bytes(8) + text
