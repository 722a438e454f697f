"""Missions, as the handlers call them: start, watch, ask for results, cancel.

The law: a mission that was accepted is recorded and queued before its id is given out, and a
refused one leaves nothing behind. Cancelling is terminal and confirmed: when `cancel` returns, the
end is in the log. The process that runs the mission is asked first, since it can close the model
call at once; where none answers in time, the canceller takes the mission over, which bars every
other runner from writing, and writes the end itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vision.errors import (
    InvalidRequest,
    Overloaded,
    StoreUnavailable,
    UnknownMission,
    UnknownNode,
)
from vision.missions.events import MissionStatus, NodeStatus, Outcome
from vision.missions.graph import Graph, build_graph
from vision.missions.hub import Hub
from vision.missions.idempotency import IdempotencyKey, IdempotencyKeys
from vision.missions.live import LiveFeed, Wish
from vision.missions.log import MissionLog, Record, Spec, decode_spec, encode_spec
from vision.missions.mission import MissionState
from vision.missions.run import MissionRun, now_ms
from vision.missions.stimuli import Cancel, Log
from vision.missions.watch import Watch
from vision.missions.writer import LogWriter, Writing
from vision.models.call import check_node_params
from vision.models.catalog import Catalog

WAITING = Outcome(NodeStatus.WAITING)

# Writing an end takes milliseconds; a client that waits longer had better know that Redis is away.
CANCEL_SECONDS: Final = 10.0

# How long the process that runs a mission may take to end it: it is a message and a write away.
ANSWER_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.02  # between two looks at whether it has


@dataclass(frozen=True, slots=True)
class Progress:
    """A mission's status, and its prompts and their outcomes in the order of `promptList`."""

    status: MissionStatus
    outcomes: Mapping[str, Outcome]
    prompts: Mapping[str, Mapping[str, Any]]


class Missions:
    """The missions of this server. `offer` queues one, `running` finds one that runs here."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        log: MissionLog,
        hub: Hub,
        live: LiveFeed,
        writer: LogWriter,
        keys: IdempotencyKeys,
        offer: Callable[[str], Awaitable[None]],
        running: Callable[[str], MissionRun | None],
        max_nodes: int,
    ) -> None:
        self._catalog = catalog
        self._log = log
        self._hub = hub
        self._live = live
        self._keys = keys
        self._offer = offer
        self._writer = writer
        self._running = running
        self._max_nodes = max_nodes

    def check(self, prompt_list: Sequence[Mapping[str, Any]]) -> Graph:
        """Everything that can be known before a mission runs. Raises `InvalidRequest`."""
        if len(prompt_list) > self._max_nodes:
            limit = f"at most {self._max_nodes} prompts are allowed, not {len(prompt_list)}"
            raise InvalidRequest(limit, path="promptList")
        for index, prompt in enumerate(prompt_list):
            self._catalog.route(prompt["mid"], path=f"promptList[{index}].mid")
        graph = build_graph(prompt_list)
        for index, node in enumerate(graph.nodes.values()):
            route = self._catalog.route(node.model)
            check_node_params(route, node.params, path=f"promptList[{index}].params")
        return graph

    async def start(
        self,
        prompt_list: Sequence[Mapping[str, Any]],
        *,
        base_mission_id: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> str:
        """Accept a mission (its `promptList` is valid by the schema) and return its id.

        Nodes that ask the same as in the base mission keep its results. With a key that was used
        before, the mission is the one that it stood for. Raises `InvalidRequest`,
        `UnknownMission` for the base, `IdempotencyConflict`, `Overloaded` and `StoreUnavailable`.
        """
        spec = await self._spec(prompt_list, base_mission_id)
        mission_id = secrets.token_hex(16)
        if key is not None:
            mission_id = await self._keys.claim(key, mission_id)
        await self._accept(mission_id, spec, key)
        return mission_id

    async def start_watched(
        self,
        prompt_list: Sequence[Mapping[str, Any]],
        *,
        base_mission_id: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> tuple[str, Watch]:
        """As `start`, and its events from the first one; see `Hub.subscribe`."""
        if key is not None:  # the mission may be an old one
            mission_id = await self.start(prompt_list, base_mission_id=base_mission_id, key=key)
            return mission_id, await self.watch(mission_id, 0)
        spec = await self._spec(prompt_list, base_mission_id)
        mission_id = secrets.token_hex(16)
        watch = self._hub.expect(mission_id)
        try:
            await self._accept(mission_id, spec, key)
        except BaseException:
            watch.close()
            raise
        self._hub.follow(mission_id)
        return mission_id, watch

    async def _spec(
        self, prompt_list: Sequence[Mapping[str, Any]], base_mission_id: str | None
    ) -> bytes:
        self.check(prompt_list)
        if base_mission_id is not None:
            await self._check_base(base_mission_id)
        return encode_spec(Spec([dict(prompt) for prompt in prompt_list], base_mission_id))

    async def _accept(self, mission_id: str, spec: bytes, key: IdempotencyKey | None) -> None:
        """Record it and queue it, unless that has been done before."""
        if await self._log.create(mission_id, spec, now_ms()):
            await self._queue(mission_id, key)
        elif (await self._log.record(mission_id)).status is MissionStatus.QUEUED:
            # Whoever came first with the key may have been cut off before it was queued.
            await self._offer(mission_id)

    async def _check_base(self, mission_id: str) -> None:
        try:
            await self._log.record(mission_id)
        except UnknownMission:
            why = f'no mission with id "{mission_id}", or it has expired'
            raise UnknownMission(why, path="baseMissionId") from None

    async def _queue(self, mission_id: str, key: IdempotencyKey | None) -> None:
        try:
            await self._offer(mission_id)
        except (StoreUnavailable, Overloaded):
            if key is None:
                await self._log.forget(mission_id)
            # With a key another request may have queued it meanwhile, and its client was told so;
            # if not, the next one with the key completes it.
            raise

    async def watch(self, mission_id: str, after: int) -> Watch:
        """Events behind the cursor; see `Hub.subscribe`."""
        return await self._hub.subscribe(mission_id, after)

    async def progress(self, mission_id: str) -> Progress:
        """How far the mission is. Raises `UnknownMission` and `StoreUnavailable`."""
        return _progress(await self._log.record(mission_id))

    async def cancel(self, mission_id: str, node_id: str | None) -> Progress:
        """End a mission, or one node of it, and return how it ended up.

        Ending what has ended already changes nothing. Raises `UnknownMission`, `UnknownNode` and
        `StoreUnavailable`.
        """
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                return await self._cancel(mission_id, node_id)
        except TimeoutError:
            raise StoreUnavailable("the end could not be written in time; try again") from None

    async def _cancel(self, mission_id: str, node_id: str | None) -> Progress:
        while True:
            progress = await self.progress(mission_id)
            if node_id is not None and node_id not in progress.outcomes:
                raise UnknownNode(f'the mission has no node with id "{node_id}"', path="id")
            if progress.status.final or _ended(progress, node_id):
                return progress
            run = self._running(mission_id)
            if run is not None:
                await run.cancel(node_id)
            elif progress.status is MissionStatus.QUEUED or not await self._ask(
                Wish(mission_id, node_id)
            ):
                await self._take_over(mission_id, node_id)

    async def _ask(self, wish: Wish) -> bool:
        """Ask whoever runs the mission to end it; whether it was done in time."""
        await self._live.wish(wish)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while True:
                    await asyncio.sleep(LOOK_SECONDS)
                    progress = await self.progress(wish.mission_id)
                    if progress.status.final or _ended(progress, wish.node_id):
                        return True
        except TimeoutError:
            return False

    async def grant(self, wish: Wish) -> None:
        """End what a client of any process wants to end, if this process runs it."""
        run = self._running(wish.mission_id)
        if run is not None and (wish.node_id is None or wish.node_id in run.state.nodes):
            await run.cancel(wish.node_id)

    async def _take_over(self, mission_id: str, node_id: str | None) -> None:
        """Take the mission over for as long as it takes to write the end."""
        claim = await self._log.acquire(mission_id)
        if claim is None:
            return
        state = MissionState(build_graph(decode_spec(claim.spec).prompt_list), claim.outcomes)
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        writing = Writing(mission_id, claim.epoch, claim.seq, ended)
        for instruction in state.handle(Cancel(node_id, now_ms())):
            if isinstance(instruction, Log):
                self._writer.put(writing, instruction.event)
        await self._writer.settled(writing)


def _progress(record: Record) -> Progress:
    prompts = {prompt["id"]: prompt for prompt in decode_spec(record.spec).prompt_list}
    outcomes = {id_: record.outcomes.get(id_, WAITING) for id_ in prompts}
    return Progress(record.status, outcomes, prompts)


def _ended(progress: Progress, node_id: str | None) -> bool:
    return node_id is not None and progress.outcomes[node_id].final
