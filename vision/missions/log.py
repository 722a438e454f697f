"""The mission's record in Redis: its log, its head and the outcomes of its nodes.

The law: the log is the truth. Events have consecutive numbers from 1, an append carries the epoch
of its runner, and Redis refuses it, atomically, when another runner has raised the epoch since. An
append that is repeated, because its answer was lost on the way, changes nothing.

Three keys a mission, with the mission id as hash tag, so that they share a slot of a cluster:

    vision:{id}:log    stream; an entry holds consecutive events, joined by line feeds, under the
                       id `<number of its last event>-0`, so that XRANGE finds a cursor directly
    vision:{id}:head   hash: epoch, seq (of the last event), status, spec, created, finished,
                       entry (of the queue, whose the mission is), claims (see `MAX_CLAIMS`)
    vision:{id}:nodes  hash: node id -> `Outcome` as JSON, written together with its event

Sources: redis.io commands XADD (explicit ids), XRANGE (a missing sequence part means 0), EVALSHA.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from vision.errors import StaleEpoch, StoreUnavailable, UnknownCursor, UnknownMission
from vision.missions import scripts
from vision.missions.events import Batch, MissionFinished, MissionStatus, Outcome, encode
from vision.redis_batching import BatchedRedis
from vision.redis_edge import is_cluster, pairs, unavailable
from vision.redis_trips import Command, by_name, trips

_logger = structlog.get_logger(__name__)

# A mission whose runner and queue entry are both lost must not stay for ever. A week is longer
# than any mission runs, and long enough for a person to look at what went wrong.
UNFINISHED_TTL_MS: Final = 7 * 24 * 3600 * 1000

# Entries that one read brings. A usual one has 0.2 to 2 kB, so a page is about the size of a
# subscriber's queue; an entry of a burst may have more, since a write takes all that waited.
PAGE_ENTRIES: Final = 100

# Claims in a row without a node that ended. One lost runner is an accident; five are a mission that
# kills whoever runs it.
MAX_CLAIMS: Final = 5

# Appends in one command, where missions share a slot: so many that the cost of a command is hardly
# seen, and so few that Redis, which does nothing else meanwhile, is done within a millisecond.
MAX_TOGETHER: Final = 32

_outcome_encoder = msgspec.json.Encoder()
_outcome_decoder = msgspec.json.Decoder(Outcome)


class Spec(msgspec.Struct, frozen=True, rename="camel"):
    """What a client asked for, as it is kept: see `schemas/generate.schema.json`."""

    prompt_list: list[dict[str, Any]]
    base_mission_id: str | None = None


_spec_decoder = msgspec.json.Decoder(Spec)


def encode_spec(spec: Spec) -> bytes:
    """The form in which a mission's spec is kept."""
    return msgspec.json.encode(spec)


def decode_spec(spec: bytes) -> Spec:
    """The inverse of `encode_spec`."""
    return _spec_decoder.decode(spec)


class Append(msgspec.Struct, frozen=True):
    """Consecutive events of one mission, with the outcomes that they tell of."""

    mission_id: str
    epoch: int
    batch: Batch
    outcomes: Mapping[str, Outcome] = msgspec.field(default_factory=dict)
    status: MissionStatus | None = None  # set with the mission's last event
    finished: int = 0  # milliseconds since the epoch, with `status`


@dataclass(frozen=True, slots=True)
class Claim:
    """A mission in the hands of the runner that has just raised its epoch."""

    mission_id: str
    epoch: int
    seq: int
    spec: bytes
    outcomes: Mapping[str, Outcome]
    claims: int = 0  # in a row, without a node that ended


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a mission: its status, its spec and the outcomes so far."""

    status: MissionStatus
    seq: int
    spec: bytes
    created: int
    finished: int | None
    outcomes: Mapping[str, Outcome]


class Page(Batch):
    """What one look into the log found; `end` is the number of the last event that is there."""

    def __init__(self, first: int, events: Sequence[bytes], end: int, *, final: bool) -> None:
        super().__init__(first, events, final=final)
        self.end = end


class MissionLog:
    """Reads and writes missions. Every method raises `StoreUnavailable` while Redis is away."""

    def __init__(self, redis: Redis, *, mission_ttl_ms: int) -> None:
        self._calls = BatchedRedis(redis)
        self._way = trips(redis)  # of the appends, which wait for nobody
        self._ttl_ms = mission_ttl_ms
        self._together = 1 if is_cluster(redis) else MAX_TOGETHER

    async def create(self, mission_id: str, spec: bytes, now: int) -> bool:
        """Record a mission that has not begun; False when it is there already.

        `spec` comes back as it is with its `Claim`.
        """
        created = await self._calls.evaluate(
            scripts.CREATE, [_head(mission_id)], [spec, now, UNFINISHED_TTL_MS]
        )
        return bool(created)

    async def forget(self, mission_id: str) -> None:
        """Remove a mission that was recorded and then could not be queued."""
        await self._calls.call("DEL", _log(mission_id), _head(mission_id), _nodes(mission_id))

    async def acquire(
        self, mission_id: str, entry_id: bytes = b"", replaces: bytes = b""
    ) -> Claim | None:
        """Take the mission over: whoever had it before can write no more.

        A runner names its queue entry, and the one that it replaces; who only writes an end has
        none. None when there is nothing to run: the mission has ended, is gone, or belongs to
        another entry of the queue.
        """
        keys = [_head(mission_id), _nodes(mission_id)]
        reply = await self._calls.evaluate(
            scripts.ACQUIRE, keys, [UNFINISHED_TTL_MS, entry_id, replaces]
        )
        if not reply:
            return None
        epoch, seq, spec, claims, nodes = reply
        outcomes = _outcomes(pairs(nodes))
        return Claim(mission_id, int(epoch), int(seq), spec, outcomes, int(claims))

    async def release(self, mission_id: str, epoch: int) -> bool:
        """Record that the mission is given up in good order; False when it is another's already."""
        return bool(await self._calls.evaluate(scripts.RELEASE, [_head(mission_id)], [epoch]))

    async def ends(self, mission_ids: Sequence[str]) -> list[int | None]:
        """The number of each mission's last event, None for one that is gone."""
        ends = await self._calls.call_all(*(("HGET", _head(id_), "seq") for id_ in mission_ids))
        return [None if seq is None else int(seq) for seq in ends]

    async def append(self, appends: Sequence[Append]) -> list[StaleEpoch | StoreUnavailable | None]:
        """Write the events of many missions in one round trip.

        One result for each: None when it is in the log, `StaleEpoch` when another runner owns the
        mission, `StoreUnavailable` when Redis refused this one (it may be tried again).
        """
        replies = await self._append_all(by_name(scripts.APPEND), appends)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            # The appends that went through are in the log, and repeating them changes nothing.
            replies = await self._append_all(("EVAL", scripts.APPEND), appends)
        return [_verdict(append, reply) for append, reply in zip(appends, replies, strict=True)]

    async def bury(self, claim: Claim) -> None:
        """End a mission of which nothing can be read but that it is there."""
        finished = encode(MissionFinished(MissionStatus.FAILED), claim.mission_id, claim.seq + 1)
        batch = Batch(claim.seq + 1, [finished], final=True)
        now = time.time_ns() // 1_000_000
        failed = MissionStatus.FAILED
        await self.append([Append(claim.mission_id, claim.epoch, batch, {}, failed, now)])

    async def read(self, mission_id: str, after: int) -> Page:
        """The events behind the cursor, at most a page of them; empty when there are none yet.

        Raises `UnknownMission` and `UnknownCursor`.
        """
        (seq, status), entries = await self._calls.call_all(
            ("HMGET", _head(mission_id), "seq", "status"),
            ("XRANGE", _log(mission_id), after + 1, "+", "COUNT", PAGE_ENTRIES),
        )
        if seq is None:
            raise unknown_mission(mission_id)
        if after > int(seq):
            raise UnknownCursor(f"the last event of the mission is {int(seq)}", path="after")
        return _page(after, entries, MissionStatus(status.decode()), int(seq))

    async def record(self, mission_id: str) -> Record:
        """Everything but the events. Raises `UnknownMission`."""
        keys = [_head(mission_id), _nodes(mission_id)]
        head, nodes = map(pairs, await self._calls.evaluate(scripts.RECORD, keys, []))
        if not head:
            raise unknown_mission(mission_id)
        finished = head.get(b"finished")
        return Record(
            status=MissionStatus(head[b"status"].decode()),
            seq=int(head[b"seq"]),
            spec=head[b"spec"],
            created=int(head[b"created"]),
            finished=int(finished) if finished is not None else None,
            outcomes=_outcomes(nodes),
        )

    async def base_of(self, claim: Claim) -> Mapping[str, Outcome]:
        """The outcomes of the claimed mission's base; none when there is no base any more."""
        base_mission_id = decode_spec(claim.spec).base_mission_id
        if base_mission_id is None:
            return {}
        try:
            return (await self.record(base_mission_id)).outcomes
        except UnknownMission:
            return {}

    async def _append_all(self, script: Command, appends: Sequence[Append]) -> list[Any]:
        parts = [appends[i : i + self._together] for i in range(0, len(appends), self._together)]
        replies = await self._way.send(
            [(*script, 3 * len(part), *_arguments(part, self._ttl_ms)) for part in parts]
        )
        # An error in place of a part's answers is that of each.
        answers = [
            reply if isinstance(reply, list) else [reply] * len(part)
            for part, reply in zip(parts, replies, strict=True)
        ]
        return list(chain.from_iterable(answers))


def _arguments(appends: Sequence[Append], ttl_ms: int) -> list[Any]:
    """The keys and the arguments of the append script."""
    keys: list[Any] = []
    arguments: list[Any] = []
    for append in appends:
        mission_id, batch, status = append.mission_id, append.batch, append.status
        keys += (_log(mission_id), _head(mission_id), _nodes(mission_id))
        arguments += (
            8 + 2 * len(append.outcomes),
            append.epoch,
            batch.first,
            batch.last,
            b"\n".join(batch.events),
            status.value if status else "",
            append.finished,
            ttl_ms if status else UNFINISHED_TTL_MS,
            int(any(outcome.final for outcome in append.outcomes.values())),
        )
        for node_id, outcome in append.outcomes.items():
            arguments += (node_id, _outcome_encoder.encode(outcome))
    return keys + arguments


def unknown_mission(mission_id: str) -> UnknownMission:
    """The error for an id that is not, or no longer, that of a mission."""
    return UnknownMission(f'no mission with id "{mission_id}", or it has expired', path="missionId")


def channel(mission_id: str) -> str:
    """Where each append is published, in the slot of the mission's keys: see `parse_live`."""
    return f"vision:{{{mission_id}}}:live"


def parse_live(message: bytes) -> Batch:
    """What the append script publishes: the first number, whether it is the end, the events."""
    head, _, events = message.partition(b"\n")
    first, final = head.split(b" ")
    return Batch(int(first), events.split(b"\n"), final=final == b"1")


def _log(mission_id: str) -> str:
    return f"vision:{{{mission_id}}}:log"


def _head(mission_id: str) -> str:
    return f"vision:{{{mission_id}}}:head"


def _nodes(mission_id: str) -> str:
    return f"vision:{{{mission_id}}}:nodes"


def _outcomes(nodes: Mapping[bytes, bytes]) -> dict[str, Outcome]:
    return {node_id.decode(): _outcome_decoder.decode(raw) for node_id, raw in nodes.items()}


def _verdict(append: Append, reply: object) -> StaleEpoch | StoreUnavailable | None:
    match reply:
        case b"done":
            return None
        case b"stale":
            return StaleEpoch(f"another runner owns mission {append.mission_id}")
        case b"gone" | b"gap":
            # Redis came back without what it had acknowledged: whoever claims the mission next
            # goes on from what is there.
            return StaleEpoch(f"the log of mission {append.mission_id} has lost its end")
        case ResponseError():
            return _refusal(append, reply)
        case _:
            raise AssertionError(f"append to {append.mission_id} answered {reply!r}")


def _refusal(append: Append, error: ResponseError) -> StaleEpoch | StoreUnavailable:
    """A refusal that only time can change, or one of a bug of ours, which costs this mission."""
    try:
        return unavailable(error)
    except ResponseError:
        _logger.exception("append_refused", mission=append.mission_id)
        return StaleEpoch(f"Redis refused an append to mission {append.mission_id}: {error}")


def _page(after: int, entries: Sequence[Any], status: MissionStatus, seq: int) -> Page:
    events: list[bytes] = []
    first = after + 1
    for entry_id, fields in entries:
        last = int(entry_id.split(b"-")[0])
        lines = fields[b"e"].split(b"\n")
        events += lines[max(0, first - (last - len(lines) + 1)) :]
        first = last + 1
    end = max(seq, after + len(events))  # an append may have come between the two commands
    final = status.final and after + len(events) >= seq
    return Page(after + 1, events, end, final=final)
