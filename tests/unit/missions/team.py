"""Several whole processes on one Redis, all in the loop of a test, and ways for each to fail.

The law: a process is what the composition root builds, with a data folder of its own; only its
loops are in the test's hands. One that crashed writes nothing more and gives nothing back; one that
is deaf hears no wish and does the rest. What is asked of Redis itself is asked past our own code.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from redis.asyncio import Redis

from tests.unit.missions.watching import batches_of
from vision.children import DataFolder
from vision.missions.run import MissionRun
from vision.services import Services, open_services
from vision.settings import Settings

# A loaded machine is slow; what waits this long has failed.
PATIENCE = 10.0


@dataclass
class Process:
    """One server's parts, running."""

    services: Services
    loops: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def start(self) -> None:
        for loop in self.services.loops:
            self.loops[loop.__qualname__] = asyncio.create_task(loop())

    async def crash(self) -> None:
        """As `kill -9`: first of all it cannot write any more."""
        await self._end(["LogWriter.run"])
        await self._end(list(self.loops))

    async def deafen(self) -> None:
        """It hears nothing of other processes any more, as one that is stuck."""
        await self._end(["LiveFeed.run"])

    async def _end(self, names: Sequence[str]) -> None:
        tasks = [self.loops.pop(name) for name in names]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled(), "a loop had ended by itself"

    @property
    def runs(self) -> dict[str, MissionRun]:
        return self.services.runner.runs

    async def begin(self, *prompts: dict[str, Any], **options: Any) -> str:
        """Start a mission here; returns when this process runs it."""
        mission_id = await self.services.missions.start(prompts, **options)
        await until(lambda: mission_id in self.runs)
        return mission_id

    async def events(self, mission_id: str, after: int = 0) -> list[dict[str, Any]]:
        """All events behind the cursor, watched from here until the end."""
        watch = await self.services.missions.watch(mission_id, after)
        async with asyncio.timeout(PATIENCE):
            return [json.loads(e) async for batch in batches_of(watch) for e in batch.events]

    async def told(self, mission_id: str, node_id: str) -> None:
        """Wait until some text of the node is in the log."""
        watch = await self.services.missions.watch(mission_id, 0)
        async with asyncio.timeout(PATIENCE), aclosing(batches_of(watch)) as batches:
            async for batch in batches:
                for event in map(json.loads, batch.events):
                    if event.get("id") == node_id and event["type"] == "token":
                        return

    async def ended(self, mission_id: str) -> dict[str, str]:
        """The statuses of its nodes once the mission has ended; its own is under ``""``."""
        await self.events(mission_id)
        progress = await self.services.missions.progress(mission_id)
        nodes = {node_id: outcome.status.value for node_id, outcome in progress.outcomes.items()}
        return {"": progress.status.value} | nodes


class Team:
    """The processes of one test."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._processes: list[Process] = []

    async def process(self, **changes: Any) -> Process:
        """One more, with settings of its own."""
        data_dir = self._settings.data_dir.with_name(f"process-{len(self._processes)}")
        settings = replace(self._settings, data_dir=data_dir, **changes)
        folder = DataFolder(data_dir)
        self._stack.callback(folder.close)
        process = Process(
            await self._stack.enter_async_context(
                open_services(settings, folder, {}, "http://127.0.0.1:1")
            )
        )
        process.start()
        self._processes.append(process)
        return process

    async def close(self) -> None:
        for process in self._processes:
            await process._end(list(process.loops))
        await self._stack.aclose()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another task of this loop brings about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


async def queue_is_empty(client: Redis) -> bool:
    """Whether no mission waits in the queue and none is claimed."""
    return await client.xlen("vision:queue") == 0


async def emptied(client: Redis) -> None:
    """Wait until every mission is out of the queue."""
    async with asyncio.timeout(PATIENCE):
        while not await queue_is_empty(client):
            await asyncio.sleep(0.01)


def tokens(events: Sequence[dict[str, Any]], node_id: str) -> str:
    """The text of a node, as a client puts it together."""
    text = ""
    for event in events:
        if event.get("id") == node_id:
            text += event["choices"][0]["text"] if event["type"] == "token" else ""
            text = "" if event["type"] == "restarted" else text
    return text


def numbered(events: Sequence[dict[str, Any]]) -> bool:
    """Whether the numbers are consecutive from 1, and the end comes last and once."""
    ends = [event["seq"] for event in events if event["type"] == "finished"]
    return [event["seq"] for event in events] == list(range(1, len(events) + 1)) and ends == [
        len(events)
    ]
