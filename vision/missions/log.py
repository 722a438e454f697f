"""The mission's record in Redis: its log, its head and the outcomes of its nodes.

The law: the log is the truth. Events have consecutive numbers from 1, an append carries the epoch
of its runner, and Redis refuses it, atomically, when another runner has raised the epoch since. An
append that is repeated, because its answer was lost on the way, changes nothing.

Three keys a mission, with the mission id as hash tag, so that they share a slot of a cluster:

    vision:{id}:log    stream; an entry holds consecutive events, joined by line feeds, under the
                       id `<number of its last event>-0`, so that XRANGE finds a cursor directly
    vision:{id}:head   hash: epoch, seq (of the last event), status, spec, created, finished
    vision:{id}:nodes  hash: node id -> `Outcome` as JSON, written together with its event

Sources: redis.io commands XADD (explicit ids), XRANGE (a missing sequence part means 0), EVALSHA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from vision.errors import StaleEpoch, StoreUnavailable, UnknownCursor, UnknownMission
from vision.missions.events import Batch, MissionStatus, Outcome
from vision.redis_edge import redis_calls, unavailable

# A mission whose runner and queue entry are both lost must not stay for ever. A week is longer
# than any mission runs, and long enough for a person to look at what went wrong.
UNFINISHED_TTL_MS: Final = 7 * 24 * 3600 * 1000

# Entries that one read brings: with a usual entry of 0.2 to 2 kB, at most about a megabyte.
PAGE_ENTRIES: Final = 500

_APPEND: Final = """
local head = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
if not head[1] then return 'gone' end
if head[1] ~= ARGV[1] then return 'stale' end
local seq, first, last = tonumber(head[2]), tonumber(ARGV[2]), tonumber(ARGV[3])
if seq >= last and last >= first then return 'done' end
if seq ~= first - 1 then return 'gap' end
if last >= first then
  redis.call('XADD', KEYS[1], last .. '-0', 'e', ARGV[4])
  redis.call('HSET', KEYS[2], 'seq', last)
end
for i = 8, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
if seq == 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[7])
  redis.call('PEXPIRE', KEYS[3], ARGV[7])
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[2], 'status', ARGV[5], 'finished', ARGV[6])
  for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ARGV[7]) end
end
return 'done'
"""

_ACQUIRE: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local head = redis.call('HMGET', KEYS[1], 'status', 'seq', 'spec')
if head[1] ~= 'queued' and head[1] ~= 'running' then return {head[1]} end
redis.call('HSET', KEYS[1], 'status', 'running')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {'running', redis.call('HINCRBY', KEYS[1], 'epoch', 1), head[2], head[3],
        redis.call('HGETALL', KEYS[2])}
"""

_outcome_encoder = msgspec.json.Encoder()
_outcome_decoder = msgspec.json.Decoder(Outcome)


@dataclass(frozen=True, slots=True)
class Append:
    """Consecutive events of one mission, with the outcomes that they tell of."""

    mission_id: str
    epoch: int
    batch: Batch
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
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


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a mission: its status, its spec and the outcomes so far."""

    status: MissionStatus
    seq: int
    spec: bytes
    created: int
    finished: int | None
    outcomes: Mapping[str, Outcome]


class MissionLog:
    """Reads and writes missions. Every method raises `StoreUnavailable` while Redis is away."""

    def __init__(self, redis: Redis, *, mission_ttl_ms: int) -> None:
        self._redis = redis
        self._ttl_ms = mission_ttl_ms
        self._sha: dict[str, str] = {}

    async def create(self, mission_id: str, spec: bytes, now: int) -> None:
        """Record a mission that has not begun; `spec` comes back as it is with its `Claim`."""
        fields: dict[Any, Any] = {"epoch": 0, "seq": 0, "spec": spec, "created": now}
        async with redis_calls(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(_head(mission_id), mapping=fields | {"status": "queued"})
            pipe.pexpire(_head(mission_id), UNFINISHED_TTL_MS)
            await pipe.execute()

    async def forget(self, mission_id: str) -> None:
        """Remove a mission that was recorded and then could not be queued."""
        async with redis_calls():
            await self._redis.delete(_log(mission_id), _head(mission_id), _nodes(mission_id))

    async def acquire(self, mission_id: str) -> Claim | None:
        """Take the mission over: whoever had it before can write no more.

        None when there is nothing left to run: the mission has ended, or is gone.
        """
        keys = [_head(mission_id), _nodes(mission_id)]
        reply = await self._evaluate(_ACQUIRE, keys, [UNFINISHED_TTL_MS])
        if len(reply) < 2:
            return None
        _, epoch, seq, spec, nodes = reply
        return Claim(mission_id, int(epoch), int(seq), spec, _outcomes(_pairs(nodes)))

    async def append(self, appends: Sequence[Append]) -> list[StaleEpoch | StoreUnavailable | None]:
        """Write the events of many missions in one round trip.

        One result for each: None when it is in the log, `StaleEpoch` when another runner owns the
        mission, `StoreUnavailable` when Redis refused this one (it may be tried again).
        """
        sha = await self._load(_APPEND)
        replies = await self._append_all(appends, sha)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            # A restarted Redis has an empty script cache. The appends that went through are in
            # the log already, and repeating them changes nothing.
            self._sha.clear()
            replies = await self._append_all(appends, await self._load(_APPEND))
        return [_verdict(append, reply) for append, reply in zip(appends, replies, strict=True)]

    async def read(self, mission_id: str, after: int) -> Batch:
        """The events behind the cursor, at most a page of them; empty when there are none yet.

        Raises `UnknownMission` and `UnknownCursor`.
        """
        async with redis_calls(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hmget(_head(mission_id), "seq", "status")
            pipe.xrange(_log(mission_id), min=str(after + 1), count=PAGE_ENTRIES)
            (seq, status), entries = await pipe.execute()
        if seq is None:
            raise unknown_mission(mission_id)
        if after > int(seq):
            raise UnknownCursor(f"the last event of the mission is {int(seq)}", path="after")
        return _page(after, entries, MissionStatus(status.decode()), int(seq))

    async def record(self, mission_id: str) -> Record:
        """Everything but the events. Raises `UnknownMission`."""
        async with redis_calls(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(_head(mission_id))
            pipe.hgetall(_nodes(mission_id))
            head, nodes = await pipe.execute()
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

    async def _append_all(self, appends: Sequence[Append], sha: str) -> list[Any]:
        async with redis_calls(), self._redis.pipeline(transaction=False) as pipe:
            for append in appends:
                pipe.evalsha(sha, 3, *self._append_arguments(append))
            return await pipe.execute(raise_on_error=False)

    def _append_arguments(self, append: Append) -> list[Any]:
        keys = [_log(append.mission_id), _head(append.mission_id), _nodes(append.mission_id)]
        batch, status = append.batch, append.status
        arguments: list[Any] = [
            append.epoch,
            batch.first,
            batch.last,
            b"\n".join(batch.events),
            status.value if status else "",
            append.finished,
            self._ttl_ms if status else UNFINISHED_TTL_MS,
        ]
        for node_id, outcome in append.outcomes.items():
            arguments += [node_id, _outcome_encoder.encode(outcome)]
        return [*keys, *arguments]

    async def _evaluate(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        async with redis_calls():
            return await self._redis.eval(script, len(keys), *keys, *arguments)

    async def _load(self, script: str) -> str:
        if script not in self._sha:
            async with redis_calls():
                self._sha[script] = await self._redis.script_load(script)
        return self._sha[script]


def unknown_mission(mission_id: str) -> UnknownMission:
    """The error for an id that is not, or no longer, that of a mission."""
    return UnknownMission(f'no mission with id "{mission_id}", or it has expired', path="missionId")


def _log(mission_id: str) -> str:
    return f"vision:{{{mission_id}}}:log"


def _head(mission_id: str) -> str:
    return f"vision:{{{mission_id}}}:head"


def _nodes(mission_id: str) -> str:
    return f"vision:{{{mission_id}}}:nodes"


def _pairs(flat: Sequence[bytes] | Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """A hash as a Lua script gives it: a flat list, in either version of the protocol."""
    if isinstance(flat, Mapping):
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))


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
            return unavailable(reply)
        case _:
            raise AssertionError(f"append to {append.mission_id} answered {reply!r}")


def _page(after: int, entries: Sequence[Any], status: MissionStatus, seq: int) -> Batch:
    events: list[bytes] = []
    first = after + 1
    for entry_id, fields in entries:
        last = int(entry_id.split(b"-")[0])
        lines = fields[b"e"].split(b"\n")
        events += lines[max(0, first - (last - len(lines) + 1)) :]
        first = last + 1
    final = status.final and after + len(events) >= seq
    return Batch(after + 1, events, final=final)
