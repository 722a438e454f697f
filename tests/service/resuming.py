"""Clients that are cut off again and again, and go on from their cursor, over any transport.

The law: a client keeps nothing but its cursor and what it has received. It goes on at any server,
and refuses an event that does not follow the last one.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import aiohttp
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.contract.conftest import KEY

Event = dict[str, Any]

# What a lost server or connection looks like to a client; it tries again.
CUT_OFF = (aiohttp.ClientError, OSError, WebSocketException, json.JSONDecodeError, TimeoutError)


async def ndjson(session: aiohttp.ClientSession, base: str, query: str) -> AsyncIterator[Event]:
    async with session.get(f"{base}/api/completion/st/mission?{query}") as response:
        if response.status == 200:
            async for line in response.content:
                yield json.loads(line)


async def sse(session: aiohttp.ClientSession, base: str, query: str) -> AsyncIterator[Event]:
    headers = {"Accept": "text/event-stream"}
    url = f"{base}/api/completion/st/mission?{query}"
    async with session.get(url, headers=headers) as response:
        if response.status == 200:
            async for line in response.content:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])


async def socket(session: aiohttp.ClientSession, base: str, query: str) -> AsyncIterator[Event]:
    fields = dict(pair.split("=") for pair in query.split("&"))
    url = base.replace("http", "ws") + "/api/completion/ws"
    async with connect(url, additional_headers=KEY, proxy=None) as connection:
        message = {"type": "subscribe", "missionId": fields["missionId"]}
        await connection.send(json.dumps(message | {"after": int(fields["after"])}))
        async for text in connection:
            event = json.loads(text)
            if event["type"] == "error":
                return
            if "seq" in event:
                yield event


class Client:
    """One client of one mission. `bases` tells which servers there are just now."""

    def __init__(
        self, mission_id: str, bases: Callable[[], list[str]], luck: random.Random
    ) -> None:
        self.events: list[Event] = []
        self.cuts = 0
        self._mission_id = mission_id
        self._bases = bases
        self._luck = luck

    @property
    def finished(self) -> bool:
        return bool(self.events) and self.events[-1]["type"] == "finished"

    async def run(self, session: aiohttp.ClientSession, *, longest: int) -> None:
        """Receive all events, at most `longest` with one connection."""
        while not self.finished:
            transport = self._luck.choice([ndjson, sse, socket])
            base = self._luck.choice(self._bases())
            query = f"missionId={self._mission_id}&after={len(self.events)}"
            try:
                async with asyncio.timeout(20), aclosing(transport(session, base, query)) as events:
                    await self._take(events, self._luck.randint(1, longest))
            except CUT_OFF:
                await asyncio.sleep(0.05)
            self.cuts += not self.finished

    async def _take(self, events: AsyncIterator[Event], most: int) -> None:
        async for event in events:
            assert event["seq"] == len(self.events) + 1, "an event twice, or one missing"
            self.events.append(event)
            most -= 1
            if most == 0 or self.finished:
                return
