"""Graphs over real sockets: our server, its log and an upstream, and LangGraph's server.

The law: a request is the graph, or its name, and the answer holds every node's text: one that is
not complete is no figure. Our nodes are calls of the upstream over HTTP and are logged to Valkey.

The small graphs are compared with LangGraph's server, whose nodes are functions that return at
once, in memory. The large ones are compared with schedulers in one process (`schedulers`), whose
nodes call the same upstream; they are asked for nothing over HTTP, and keep nothing. So the rows of
the peers are flattered, and say so. "x longest path" is over as many calls, one after the other.

    python -m benchmarks.graph_servers [--full]
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.alone import main
from benchmarks.graphs import CHAIN, DIAMOND, FAN_OUT, LAYERED, SHORT_CHAIN, WIDE, Shape
from benchmarks.installed import FAILURES, LANGGRAPH, ROOT, Unusable, reason
from benchmarks.lateness import Tokens, columns
from benchmarks.load import (
    CHUNKS_END,
    Calls,
    Stream,
    Target,
    chat,
    post,
    question,
    spread,
    stream,
)
from benchmarks.processes import Running, exact_cpus, free_port
from benchmarks.report import Row, Table
from benchmarks.rig import HERE, MODEL, Rig, Size, rig
from benchmarks.schedulers import PEERS, rows
from benchmarks.timing import Work
from tests.processes import ServerProcess

LARGE = (LAYERED, WIDE, CHAIN)
SMALL = (SHORT_CHAIN, FAN_OUT, DIAMOND)

# Nodes of each large shape in all: half a second.
NODES = {Size.QUICK: 1_000, Size.FULL: 30_000}

# Requests for each small shape: our server needs some milliseconds for each, LangGraph's a second.
OURS = {Size.QUICK: 50, Size.FULL: 1_000}
THEIRS = {Size.QUICK: 2, Size.FULL: 60}

# Of the upstream itself: the first ones let Node compile what it runs, the others are measured.
# With fewer the graphs, which come later, would seem faster than their longest path.
WARM_UP_CALLS = 1_000
CALLS = 100

# Connections to the upstream are open and pools are filled after that.
WARM_UP = 1

# Without an account it talks to nobody; these keep it from trying.
ENVIRON = {
    "LANGSMITH_TRACING": "false",
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "PYTHONPATH": str(ROOT),
}
NOTE = "nodes return at once, nothing is called, in memory; it polls its queue every 0.5 s"


@dataclass(frozen=True, slots=True)
class Subject:
    """A server that runs: how a graph is asked for, and what it has used.

    In seconds of processor time, its children's apart.
    """

    name: str
    target: Callable[[Shape], Target]
    cpu: Callable[[], tuple[float, float]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """Some requests, one after the other: their answers, and processor time of all."""

    answers: Sequence[Stream]
    cpu: float
    children: float

    @property
    def seconds(self) -> list[float]:
        """From each request to the end of its answer."""
        return [answer.last - answer.sent for answer in self.answers]


async def run(size: Size) -> list[Table]:
    """The large shapes on our server, the small ones on both."""
    with rig() as base:
        with vision(base) as ours:
            calls = await _calls(base.upstream.port)
            large = [await _large(ours, shape, NODES[size] // len(shape), calls) for shape in LARGE]
            small = [await _small(ours, shape, OURS[size], calls) for shape in SMALL]
        try:
            with langgraph(base) as theirs:
                small += [await _small(theirs, shape, THEIRS[size]) for shape in SMALL]
        except FAILURES as error:
            small.append(Row("LangGraph's server", note=reason(error)))
        port = base.upstream.port
        works = [Work(shape, _median(calls), NODES[size] // len(shape), port) for shape in LARGE]
        for peer in PEERS:
            found = await asyncio.to_thread(rows, peer, works)
            large += [
                replace(row, subject=f"{row.subject}, {work.shape.name}")
                for row, work in zip(found, works, strict=True)
            ]
    return [
        Table("scheduler-http", "large graphs, one after another, nodes are calls", large),
        Table("scheduler-http", "small graphs, one after another", small),
    ]


@contextmanager
def vision(rig: Rig) -> Iterator[Subject]:
    """Our server with its defaults; a mission is watched in the answer that starts it."""
    with rig.server() as server:
        yield Subject(
            "Vision", lambda shape: mission(server, shape), lambda: exact_cpus(server.pid)
        )


@contextmanager
def langgraph(rig: Rig) -> Iterator[Subject]:
    """`langgraph dev`, the server that keeps everything in memory."""
    program = LANGGRAPH / "bin" / "langgraph"
    if not program.exists():
        raise Unusable("not installed: make bench-peers")
    # A copy, since it writes its state beside its configuration.
    folder = shutil.copytree(HERE / "langgraph_app", rig.folder / "langgraph_app")
    port = free_port()
    argv = [str(program), "dev", "--no-browser", "--no-reload", "--port", str(port)]
    argv += ["--server-log-level", "ERROR"]
    log = rig.folder / "langgraph.log"
    with Running(argv, port, log, environ=ENVIRON, folder=folder) as running:
        yield Subject(
            "LangGraph's server",
            lambda shape: _run(running, shape),
            lambda: exact_cpus(running.pid),
            NOTE,
        )


def mission(server: ServerProcess, shape: Shape) -> Target:
    body = {"promptList": shape.prompts(MODEL, question(1, 0))}
    path, key = "/api/completion/st/generate", "Vision chat"
    return post(server.port, path, body, b"[FINISHED]", Authorization=key)


def _run(running: Running, shape: Shape) -> Target:
    """A run without a thread; each node's text is an event of the answer."""
    body = {"assistant_id": shape.name, "input": {"texts": []}, "stream_mode": "updates"}
    return post(running.port, "/runs/stream", body, CHUNKS_END)


async def _calls(port: int) -> list[Stream]:
    """Of the upstream itself, one after another."""
    calls = Calls(chat(port, 1, 0))
    answers = [await calls.ask() for _ in range(WARM_UP_CALLS + CALLS)]
    calls.close()
    return answers[WARM_UP_CALLS:]


def _median(calls: Sequence[Stream]) -> float:
    """Seconds of a call."""
    return median(call.last - call.sent for call in calls)


async def _large(subject: Subject, shape: Shape, count: int, calls: Sequence[Stream]) -> Row:
    found, nodes = await _measure(subject, shape, count), len(shape) * count
    figures = {
        "us/node": found.cpu / nodes * 1e6,
        "children us/node": found.children / nodes * 1e6,
        "wall ms": median(found.seconds) * 1e3,
        "x longest path": median(found.seconds) / (shape.critical_path * _median(calls)),
        **_tokens(found, calls),
    }
    return Row(f"{subject.name}, {shape.name}", figures)


async def _small(subject: Subject, shape: Shape, count: int, calls: Sequence[Stream] = ()) -> Row:
    """Without `calls` its nodes call nothing."""
    found = await _measure(subject, shape, count)
    times = spread(found.seconds)
    figures = {
        "p50 ms": times.p50,
        "p99 ms": times.p99,
        "us/run": found.cpu / count * 1e6,
        "children us/run": found.children / count * 1e6,
    }
    if calls:
        figures["x longest path"] = times.p50 / 1e3 / (shape.critical_path * _median(calls))
    return Row(f"{subject.name}, {shape.name}", figures | _tokens(found, calls), subject.note)


def _tokens(found: Measured, calls: Sequence[Stream]) -> dict[str, float]:
    """When the nodes' texts came, each of which is a token, beside calls one after the other."""
    between = [call.last - call.sent for call in calls]
    return columns(Tokens.of(found.answers), Tokens(Tokens.of(calls).firsts, between))


async def _measure(subject: Subject, shape: Shape, count: int) -> Measured:
    target = subject.target(shape)
    for _ in range(WARM_UP):
        await _one(target, shape)
    before = subject.cpu()
    answers = [await _one(target, shape) for _ in range(count)]
    own, children = (now - then for now, then in zip(subject.cpu(), before, strict=True))
    return Measured(answers, own, children)


async def _one(target: Target, shape: Shape) -> Stream:
    """The whole answer, or none."""
    answer = await stream(target)
    if not answer.complete or answer.tokens != len(shape):
        raise Unusable(f"{shape.name}: {answer.tokens} of {len(shape)} nodes answered")
    return answer


if __name__ == "__main__":
    main(run)
