"""GET /api/completion/ws: missions over WebSocket, with the official `websockets` client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.contract.conftest import KEY, Api, chat, contents_of
from tests.upstream import NEVER, Reply, ScriptedUpstream

PATH = "/api/completion/ws"
pytestmark = pytest.mark.gen_test


class Socket:
    """A connection that speaks JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def receive(self) -> dict[str, Any]:
        return json.loads(await asyncio.wait_for(self.connection.recv(), 10))

    async def ask(self, **message: Any) -> dict[str, Any]:
        await self.send(**message)
        return await self.receive()

    async def events(self, mission_id: str) -> list[dict[str, Any]]:
        """The events of a mission up to its last."""
        events = []
        while not events or events[-1]["type"] != "finished":
            message = await self.receive()
            if message["missionId"] == mission_id:
                events.append(message)
        return events


@asynccontextmanager
async def open_socket(base_url: str, query: str = "", **options: Any) -> AsyncIterator[Socket]:
    headers = {} if query else KEY
    url = base_url.replace("http", "ws") + PATH + query
    async with connect(url, additional_headers=headers, proxy=None, **options) as connection:
        yield Socket(connection)


async def test_generate_is_accepted_and_subscribed_from_the_first_event(
    api: Api, base_url: str
) -> None:
    async with open_socket(base_url) as socket:
        accepted = await socket.ask(type="generate", requestId="r1", promptList=[chat("a", "hi")])
        events = await socket.events(accepted["missionId"])

    assert (accepted["type"], accepted["requestId"]) == ("accepted", "r1")
    assert [event["seq"] for event in events] == [*range(1, len(events) + 1)]
    assert contents_of(events) == {"a": "echo: hi"}


async def test_events_are_the_same_as_over_http(api: Api, base_url: str) -> None:
    async with open_socket(base_url) as socket:
        accepted = await socket.ask(type="generate", promptList=[chat("a", "one two")])
        events = await socket.events(accepted["missionId"])

    replay = await api.get(f"/api/completion/st/mission?missionId={accepted['missionId']}")
    assert events == [json.loads(line) for line in replay.body.splitlines()]


async def test_several_missions_share_a_connection(
    api: Api, base_url: str, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(tokens=["s1", "s2"], delay=0.1))
    async with open_socket(base_url) as socket:
        slow = await socket.ask(type="generate", promptList=[chat("a", "slow")])
        await socket.send(type="generate", requestId=2, promptList=[chat("b", "quick")])
        seen: dict[str, list[dict[str, Any]]] = {}
        ended = 0
        while ended < 2:
            message = await socket.receive()
            seen.setdefault(message["missionId"], []).append(message)
            ended += message["type"] == "finished"

    texts = [
        contents_of([event for event in events if event["type"] != "accepted"])
        for events in seen.values()
    ]
    assert {"a": "s1s2"} in texts
    assert {"b": "echo: quick"} in texts
    assert slow["missionId"] in seen


async def test_subscribe_goes_on_from_a_cursor(api: Api, base_url: str) -> None:
    mission_id = await api.generate([chat("a", "one two three")])
    await api.finished(mission_id)

    async with open_socket(base_url) as socket:
        answer = await socket.ask(type="subscribe", missionId=mission_id, after=2, requestId=5)
        events = await socket.events(mission_id)

    assert answer["type"] == "subscribed"
    assert (answer["after"], answer["over"], answer["requestId"]) == (2, False, 5)
    assert events[0]["seq"] == 3


async def test_subscribing_at_the_end_says_that_it_is_over(api: Api, base_url: str) -> None:
    mission_id = await api.generate([chat("a", "hi")])
    await api.finished(mission_id)
    replay = await api.get(f"/api/completion/st/mission?missionId={mission_id}")
    last = len(replay.body.splitlines())

    async with open_socket(base_url) as socket:
        answer = await socket.ask(type="subscribe", missionId=mission_id, after=last)
        pong = await socket.ask(type="ping")

    assert (answer["over"], pong["type"]) == (True, "pong")


async def test_unsubscribe_stops_the_events_and_not_the_mission(
    api: Api, base_url: str, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(tokens=["x", "y"], before_first=0.3))
    async with open_socket(base_url) as socket:
        accepted = await socket.ask(type="generate", promptList=[chat("a", "slow")])
        mission_id = accepted["missionId"]
        answer = await socket.ask(type="unsubscribe", missionId=mission_id)
        result = await api.finished(mission_id)
        pong = await socket.ask(type="ping")

    assert answer["type"] == "unsubscribed"
    assert result["data"][0]["content"] == "xy"
    assert pong["type"] == "pong"


async def test_cancel_is_confirmed_and_the_events_end(
    api: Api, base_url: str, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(before_first=NEVER))
    async with open_socket(base_url) as socket:
        accepted = await socket.ask(type="generate", promptList=[chat("a", "slow")])
        await upstream.wait_requests(1)
        await socket.send(type="cancel", missionId=accepted["missionId"], requestId="c")
        messages = [await socket.receive() for _ in range(3)]

    await upstream.wait_closed(1, timeout=1)
    kinds = sorted(message["type"] for message in messages)
    assert kinds == ["cancelled", "ended", "finished"]
    ended = next(message for message in messages if message["type"] == "ended")
    assert (ended["requestId"], ended["status"]) == ("c", "cancelled")


@pytest.mark.parametrize(
    ("message", "code", "path"),
    [
        ("no json", "invalid_request", ""),
        ("[]", "invalid_request", "$"),
        ("{}", "invalid_request", "type"),
        ('{"type": "dance"}', "invalid_request", "type"),
        ('{"type": "subscribe"}', "invalid_request", "missionId"),
        ('{"type": "subscribe", "missionId": "nope"}', "unknown_mission", "missionId"),
        ('{"type": "cancel", "missionId": "nope"}', "unknown_mission", "missionId"),
        ('{"type": "generate", "promptList": []}', "invalid_request", "promptList"),
        ('{"type": "generate", "promptList": [{"id": 1}]}', "invalid_request", "promptList[0]"),
        (b"\x00\x01", "invalid_request", ""),
        ("[" * 10_000, "invalid_request", ""),
    ],
)
async def test_a_wrong_message_is_answered_and_leaves_the_connection_open(
    api: Api, base_url: str, message: str | bytes, code: str, path: str
) -> None:
    async with open_socket(base_url) as socket:
        await socket.connection.send(message)
        error = await socket.receive()
        pong = await socket.ask(type="ping", requestId=1)

    assert (error["type"], error["code"]) == ("error", code)
    assert error["path"].startswith(path)
    assert error["message"]
    assert pong == {"type": "pong", "requestId": 1}


async def test_an_error_carries_the_request_id(api: Api, base_url: str) -> None:
    async with open_socket(base_url) as socket:
        error = await socket.ask(type="subscribe", missionId="nope", requestId="mine")

    assert error["requestId"] == "mine"


async def test_a_ticket_opens_a_socket_once(api: Api, base_url: str) -> None:
    ticket = json.loads((await api.post("/api/ticket", "")).body)["data"]["ticket"]

    async with open_socket(base_url, f"?ticket={ticket}") as socket:
        pong = await socket.ask(type="ping")
    with pytest.raises(InvalidStatus) as refused:
        async with open_socket(base_url, f"?ticket={ticket}"):
            pass

    assert pong["type"] == "pong"
    assert refused.value.response.status_code == 401


async def test_another_sites_page_cannot_connect(api: Api, base_url: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with open_socket(base_url, origin="https://elsewhere.example"):
            pass

    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["error"]["code"] == "origin_refused"


async def test_the_servers_own_page_connects(api: Api, base_url: str) -> None:
    async with open_socket(base_url, origin=base_url) as socket:
        assert (await socket.ask(type="ping"))["type"] == "pong"


@pytest.mark.parametrize(
    ("on_disconnect", "status"), [("cancel", "cancelled"), ("continue", "succeeded")]
)
async def test_on_disconnect_decides_what_closing_the_socket_does(
    api: Api, base_url: str, upstream: ScriptedUpstream, on_disconnect: str, status: str
) -> None:
    upstream.on("slow", Reply(tokens=["x"], before_first=0.4))
    async with open_socket(base_url) as socket:
        accepted = await socket.ask(
            type="generate", promptList=[chat("a", "slow")], onDisconnect=on_disconnect
        )
        await upstream.wait_requests(1)

    assert (await api.finished(accepted["missionId"]))["status"] == status


async def test_a_broken_frame_closes_the_connection(api: Api, base_url: str) -> None:
    async with open_socket(base_url) as socket:
        socket.connection.transport.write(b"\xff\xff\xff\xff")
        with pytest.raises(ConnectionClosed):
            await socket.receive()


async def test_a_message_larger_than_the_limit_closes_the_connection(
    api: Api, base_url: str, settings: Any
) -> None:
    async with open_socket(base_url) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.send(type="ping", requestId="x" * settings.max_body)
            await socket.receive()

    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
