"""Case 9: from `python server.py` to the first answer, with embedded defaults.

    python -m benchmarks.start [--full]

The law: nothing is configured but the port and the folder, so the embedded Valkey, the database and
the embedded model are started too. A server is asked from when it says that it listens, which is
noticed within 10 ms. The first start of a folder makes what it holds; later ones find it there.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.alone import main
from benchmarks.load import http_request
from benchmarks.processes import Use, uses_of
from benchmarks.report import Row, Table
from benchmarks.rig import MODEL, Size
from tests.processes import ServerProcess
from vision.errors import ModelError
from vision.models.local import weights

# How often a folder's first start and its later ones are measured.
STARTS = {Size.QUICK: 1, Size.FULL: 8}

# The embedded model loads in under a second; a cold disk takes many times that.
READY_SECONDS = 60.0
LOOK_SECONDS = 0.005  # between two requests of a prober

KEY = {"Authorization": "Vision chat", "Connection": "close"}


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds until each first answer, and what was used until then."""

    alive: float
    ready: float
    answered: float | None  # None where the embedded model is not installed
    own: Use
    children: Use


async def run(size: Size) -> Table:
    """Each folder is started twice, first new and then again."""
    note = _missing_model()
    new, again = [], []
    for _ in range(STARTS[size]):
        with tempfile.TemporaryDirectory(prefix="vision-bench-") as name:
            data = Path(name) / "data"
            new.append(await _start(data, answer=not note))
            again.append(await _start(data, answer=not note))
    rows = [Row("new folder", _figures(new), note), Row("same folder", _figures(again), note)]
    title = f"from `python server.py` to the first answers; median of {STARTS[size]} starts"
    return Table("start", title, rows)


def _missing_model() -> str:
    try:
        weights()
    except ModelError as error:
        return error.message
    return ""


def _figures(starts: list[Start]) -> dict[str, float]:
    answers = [start.answered for start in starts if start.answered is not None]
    figures = {
        "/healthz ms": median(start.alive for start in starts) * 1e3,
        "/readyz ms": median(start.ready for start in starts) * 1e3,
        "CPU ms/start": median(start.own.cpu for start in starts) * 1e3,
        "children ms/start": median(start.children.cpu for start in starts) * 1e3,
        "server MB": median(start.own.memory_kb for start in starts) / 1024,
        "children MB": median(start.children.memory_kb for start in starts) / 1024,
    }
    if answers:
        figures["first prompt ms"] = median(answers) * 1e3
    return figures


async def _start(data: Path, *, answer: bool) -> Start:
    begin = time.perf_counter()
    with ServerProcess(data) as server:
        alive = await _until(server.port, http_request("GET", "/healthz", b"", KEY)) - begin
        # Both at once: who has just started it does not wait for /readyz.
        looks = [_until(server.port, http_request("GET", "/readyz", b"", KEY))]
        if answer:
            looks.append(_until(server.port, _prompt()))
        ready, *answered = [moment - begin for moment in await asyncio.gather(*looks)]
        own, children = uses_of(server.pid)
        server.terminate()  # so that the next start finds it all in order
    first = answered[0] if answered else None
    return Start(alive, ready, first, own, children)


def _prompt() -> bytes:
    """One token of the embedded model."""
    messages = [{"role": "user", "content": "Hi!"}]
    body = {"model": MODEL, "params": {"messages": messages, "max_tokens": 1}}
    return http_request(
        "POST", "/api/completion/single-prompt-request", json.dumps(body).encode(), KEY
    )


async def _until(port: int, request: bytes) -> float:
    """Ask until the answer is good; the moment at which it was whole."""
    async with asyncio.timeout(READY_SECONDS):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            answer = await reader.read(-1)  # the server closes, as it was asked to
            writer.close()
            if answer.startswith(b"HTTP/1.1 200 "):
                return time.perf_counter()
            await asyncio.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main(run)
