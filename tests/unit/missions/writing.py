"""What tests of the writer and of the hub put, and how they read what came of it.

The law: `Published` stands where the hub stands, and holds every batch against the log at the very
moment in which it is published.
"""

from __future__ import annotations

import asyncio
import json

import redis

from vision.missions.events import (
    Batch,
    MissionFinished,
    MissionStatus,
    NodeEnded,
    NodeStatus,
    Outcome,
    Token,
)
from vision.missions.log import MissionLog
from vision.missions.writer import Writing

RUNNING = Outcome(NodeStatus.RUNNING, attempts=1, started=5)
FINISHED = MissionFinished(MissionStatus.SUCCEEDED)


def token(node_id: str, text: str, reason: str | None = None) -> Token:
    return Token(node_id, "m", text, reason, 7)


def ended(node_id: str) -> NodeEnded:
    return NodeEnded(node_id, Outcome(NodeStatus.SUCCEEDED))


def short(batch: Batch) -> list[str]:
    """`a:text` for a token, `a[DONE]` for a node's end, `[FINISHED]`."""
    documents = [json.loads(event) for event in batch.events]
    assert [document["seq"] for document in documents] == list(range(batch.first, batch.last + 1))
    return [
        f"{document.get('id', '')}{document['statue']}"
        if "statue" in document
        else f"{document['id']}:{document['choices'][0]['text']}"
        for document in documents
    ]


class Published:
    """What was published, each batch checked against the log at that very moment."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis(unix_socket_path=url.removeprefix("unix://"))
        self.batches: list[Batch] = []

    def __call__(self, mission_id: str, batch: Batch) -> None:
        entries = self._redis.xrange(f"vision:{{{mission_id}}}:log")
        logged = [event for _, fields in entries for event in fields[b"e"].split(b"\n")]
        assert tuple(logged[batch.first - 1 : batch.last]) == batch.events
        if batch.events:
            self.batches.append(batch)

    @property
    def all(self) -> list[list[str]]:
        return [short(batch) for batch in self.batches]

    def close(self) -> None:
        self._redis.close()


async def open_writing(log: MissionLog, mission_id: str = "m") -> Writing:
    if not await log._calls.call("EXISTS", f"vision:{{{mission_id}}}:head"):
        await log.create(mission_id, b"[]", 1)
    claim = await log.acquire(mission_id)
    assert claim is not None
    ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    return Writing(mission_id, claim.epoch, claim.seq, ended)


async def in_flight() -> None:
    """The writer takes what waits; its answer cannot come before the loop looks at sockets."""
    await asyncio.sleep(0)
