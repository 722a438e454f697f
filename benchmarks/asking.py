"""What a case asks of a server before and after it measures: one request, its whole answer.

The law: this is for preparing and for looking, and is never what is timed.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

KEY = {"Authorization": "Vision chat"}

# Preparing takes milliseconds; a server that hangs is a failure, not a slow one.
ANSWER_SECONDS = 30


async def ask(port: int, path: str, body: object = None, method: str | None = None) -> bytes:
    """The body of the answer; POST with a body, as JSON unless it is bytes, else GET."""
    return await asyncio.to_thread(_ask, port, path, body, method)


async def ask_json(port: int, path: str, body: object = None) -> Any:
    """The same, read as JSON."""
    return json.loads(await ask(port, path, body))


def _ask(port: int, path: str, body: object, method: str | None) -> bytes:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, data=data, headers=KEY, method=method)
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        found: bytes = answer.read()
        return found
