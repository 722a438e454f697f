"""How cost grows: with tokens, streams, nodes, subscribers, and missions kept.

    python -m benchmarks.growth [--full]

The law: a table for each, in which nothing else changes from row to row. All rows come from one
server that was warmed up (missions kept: from another), the smallest first. Streams that run
together begin evenly spread over one gap, so that tokens come one by one, as from models, and not
all at one tick of a clock. The upstream itself is read under the load of each row, too, but for
graphs (one call after another) and subscribers (ten readers). Children are the server's own Valkey.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from benchmarks import fanout
from benchmarks.alone import main
from benchmarks.asking import ask_json
from benchmarks.costs import Cost, Meter, rows, rows_of_sizes
from benchmarks.graphs import Shape, layered, wide
from benchmarks.kept import missions_kept
from benchmarks.lateness import Tokens, beside, columns
from benchmarks.load import Stream, Target, post, question, stream, streams
from benchmarks.report import Table
from benchmarks.rig import MODEL, Rig, Size, generate, rig
from benchmarks.sockets import raise_descriptor_limit
from tests.processes import ServerProcess

# More than any row has missions at once, so that none waits for its turn.
ROOM = 512

# Of a stream. 5,000 tokens a second flow, for which the server has a core that is fast enough.
TOKENS = {Size.QUICK: (50, 200), Size.FULL: (50, 200, 800)}
TOKEN_STREAMS = 50
TOKEN_GAP = 10  # milliseconds

# At this pace every gap is a whole number of milliseconds, which the upstream can keep.
STREAMS = {Size.QUICK: (10, 50, 200), Size.FULL: (10, 50, 200, 400)}
PACE = 2_500  # tokens a second, of all streams together

# How long they flow: some thousand tokens at least are measured for a row.
FLOW_SECONDS = {Size.QUICK: 1.5, Size.FULL: 12.0}

# Parts of that time: before the first all streams have begun, after the second they begin to end.
STEADY = (0.3, 0.9)

WIDE = {Size.QUICK: (10, 100, 1_000), Size.FULL: (10, 100, 1_000, 10_000)}  # nodes

# Of nodes, which wait for all of the layer before.
LAYERS = {Size.QUICK: (1, 10, 100), Size.FULL: (1, 10, 100, 1_000)}
LAYER = 10

# What the titles say of the nodes.
WAYS = {
    "nodes": "that wait for nothing",
    "layers": f"in layers of {LAYER}, each waits for all of the layer before",
}

# A row runs its graph until so many nodes have run: one of ten is over in milliseconds.
ENOUGH_NODES = {Size.QUICK: 1_000, Size.FULL: 20_000}

SUBSCRIBERS = {Size.QUICK: (1, 500), Size.FULL: (1, 10, 100, 500)}
WATCHED_TOKENS = {Size.QUICK: 25, Size.FULL: 200}

# Of the upstream itself, one after another, to know when a first token can be here.
CALLS = 100

# They fill pools and caches, and let the interpreter specialise the server's code.
WARM_UP_STREAMS, WARM_UP_TOKENS, WARM_UP_RUNS = 50, 20, 3


async def run(size: Size) -> list[Table]:
    """One dimension after another."""
    raise_descriptor_limit()
    with rig() as made:
        with made.server(f"--room={ROOM}") as server:
            await _warm_up(server)
            shapes = {
                "nodes": [wide(count) for count in WIDE[size]],
                "layers": [layered(count, LAYER) for count in LAYERS[size]],
            }
            tables = [
                await tokens(made, server, size),
                await streams_at_once(made, server, size),
                *[await nodes(made, server, size, *each) for each in shapes.items()],
                await subscribers(made, server, size),
            ]
        return [*tables, await missions_kept(made, size)]


async def tokens(made: Rig, server: ServerProcess, size: Size) -> Table:
    """Whole streams of more and more tokens, from the request to the last event."""
    costs = []
    for count in TOKENS[size]:
        direct = await _evenly(made.direct(count, TOKEN_GAP), TOKEN_STREAMS, TOKEN_GAP)
        meter = Meter(server.pid)
        found = await _evenly(generate(server, count, TOKEN_GAP), TOKEN_STREAMS, TOKEN_GAP)
        cost = _cost(meter, f"{count} tokens", found, TOKEN_STREAMS * count)
        costs.append(replace(cost, late=_late(found, direct)))
    title = f"{TOKEN_STREAMS} streams at once, {TOKEN_GAP} ms between two tokens"
    return Table("growth-tokens", title, rows_of_sizes(costs, "token"))


async def streams_at_once(made: Rig, server: ServerProcess, size: Size) -> Table:
    """More and more streams that flow, slower and slower: how they begin and end is not in it."""
    costs = [await _steady(made, server, count, FLOW_SECONDS[size]) for count in STREAMS[size]]
    title = f"{PACE:,} tokens a second, however many streams they are divided among"
    return Table("growth-streams", title, rows(costs, "token"))


async def _steady(made: Rig, server: ServerProcess, count: int, seconds: float) -> Cost:
    """Tokens are counted where they are made, by the upstream."""
    gap = count * 1000 // PACE
    length = int(seconds * 1000) // gap
    direct = await _evenly(made.direct(length, gap), count, gap)
    flowing = asyncio.create_task(_evenly(generate(server, length, gap), count, gap))
    begin, end = (part * seconds for part in STEADY)
    await asyncio.sleep(begin)
    made_before, meter = await _made(made), Meter(server.pid)
    await asyncio.sleep(end - begin)
    cost = meter.cost(f"{count} streams", await _made(made) - made_before)
    found = await flowing
    lost = sum(not each.complete for each in found)
    note = f"{lost} streams not complete" if lost else ""
    return replace(cost, note=note, late=_late(found, direct))


async def _made(made: Rig) -> int:
    seen = await ask_json(made.upstream.port, "/seen")
    return int(seen["tokens"])


async def nodes(
    made: Rig, server: ServerProcess, size: Size, case: str, shapes: Sequence[Shape]
) -> Table:
    """Missions of more and more nodes, one at a time, from the request to the last event.

    The first token is that of the whole mission, beside that of one call of the upstream. Tokens of
    different nodes make no gaps.
    """
    calls = [await stream(made.direct(1, 0)) for _ in range(CALLS)]
    direct, costs = Tokens.of(calls).firsts, []
    for shape in shapes:
        runs = max(1, ENOUGH_NODES[size] // len(shape))
        body = {"promptList": shape.prompts(MODEL, question(1, 0))}
        path, key = "/api/completion/st/generate", "Vision chat"
        target = post(server.port, path, body, b"[FINISHED]", Authorization=key)
        meter = Meter(server.pid)
        found = [await stream(target) for _ in range(runs)]
        cost = _cost(meter, f"{len(shape):,} nodes", found, runs * len(shape), runs)
        costs.append(replace(cost, late=beside("first", Tokens.of(found).firsts, direct)))
    title = f"missions, one at a time, of nodes of one token {WAYS[case]}"
    return Table(f"growth-{case}", title, rows_of_sizes(costs, "node"))


async def subscribers(made: Rig, server: ServerProcess, size: Size) -> Table:
    """The mission of the fan-out, watched by more and more."""
    costs, count = [], WATCHED_TOKENS[size]
    direct, _ = await fanout.upstream(made, count)
    for watching in SUBSCRIBERS[size]:
        found, events = await fanout.ours(server, watching, count)
        used, note = (found.server, found.children, found.wall), found.faults(len(events))
        late = columns(found.tokens(), direct)
        costs.append(Cost(f"{watching} watching", found.frames, 1, *used, note, late))
    title = f"WebSockets watch one mission of {count} tokens, {fanout.GAP} ms apart"
    return Table("growth-subscribers", title, rows_of_sizes(costs, "frame"))


def _cost(
    meter: Meter, subject: str, found: Sequence[Stream], expected: int, runs: int = 1
) -> Cost:
    """Of the tokens that came; the note says what did not."""
    came = sum(each.tokens for each in found)
    note = f"{expected - came} of {expected} tokens lost" if came != expected else ""
    return meter.cost(subject, came, runs, note)


def _late(found: Sequence[Stream], direct: Sequence[Stream]) -> dict[str, float]:
    return columns(Tokens.of(found), Tokens.of(direct))


async def _evenly(target: Target, count: int, gap: int) -> list[Stream]:
    """So many streams at once, which begin one after another within `gap` milliseconds."""

    async def one(number: int) -> Stream:
        await asyncio.sleep(gap / 1000 * number / count)
        return await stream(target)

    return await asyncio.gather(*(one(number) for number in range(count)))


async def _warm_up(server: ServerProcess) -> None:
    for _ in range(WARM_UP_RUNS):
        await streams(generate(server, WARM_UP_TOKENS, 0), WARM_UP_STREAMS)


if __name__ == "__main__":
    main(run)
