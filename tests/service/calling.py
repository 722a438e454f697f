"""A server process, called over HTTP by tests that are no coroutines."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.contract.conftest import KEY, events_of
from tests.processes import ServerProcess


def call(server: ServerProcess, path: str, body: Any = None) -> tuple[int, bytes]:
    """One request; POST when there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.base_url + path, data=data, headers=KEY)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.status, answer.read()


def generate(server: ServerProcess, *prompt_list: dict[str, Any]) -> str:
    _, body = call(server, "/api/completion/generate", {"promptList": prompt_list})
    return json.loads(body)["data"]["missionId"]


def watch(server: ServerProcess, mission_id: str, after: int = 0) -> list[dict[str, Any]]:
    path = f"/api/completion/st/mission?missionId={mission_id}&after={after}"
    return events_of(call(server, path)[1])


def first_events(server: ServerProcess, mission_id: str, count: int) -> list[dict[str, Any]]:
    """The first events of a mission that runs."""
    url = f"{server.base_url}/api/completion/st/mission?missionId={mission_id}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=KEY), timeout=30) as stream:
        return [json.loads(stream.readline()) for _ in range(count)]
