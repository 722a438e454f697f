"""What one process and one Redis hold, measured here, and how many of each a load needs.

    python -m benchmarks.scaling [--streams 50] [--tokens 400] [--gap 0.05]

The first half runs a real server, a real Valkey and a scripted upstream: so many missions of one
node at once, paced, each watched over HTTP by one client. It reads the processor time that the
server and Valkey used, and the memory that Valkey keeps for a mission. The second half is
arithmetic on these figures: processor time grows with tokens, memory with missions kept, and a
process or a shard is filled to a part of one core (`FILL`).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.processes import use_of
from tests.contract.conftest import KEY, chat
from tests.processes import ServerProcess, UpstreamProcess
from tests.valkeys import Valkey

# Latency stays flat up to about this part of a core, and a lost neighbour's share still fits.
FILL = 0.6

TOKENS_PER_SECOND = 20  # of one stream: what people read along with
KEPT_SECONDS = 24 * 3600  # `mission-ttl`
SHARD_MEMORY_GB = 32

LOADS = (1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one token and one mission cost."""

    server_us: float  # of processor time, for a token
    valkey_us: float
    kept_bytes: float  # in Valkey, for a token, until the mission expires
    stream_kb: float  # in the server, that streams leave behind: what it grew by, over their number


@dataclass(frozen=True, slots=True)
class Plan:
    """How many it takes."""

    processes: int
    shards_for_work: int
    shards_for_memory: int


async def measure(streams: int, tokens: int, gap: float) -> Cost:
    """Run the load once to warm up, once to measure."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        valkey = stack.enter_context(Valkey(folder / "valkey", "--appendonly", "yes"))
        upstream = stack.enter_context(UpstreamProcess(folder / "upstream.log"))
        models = upstream.write_models(folder / "models.toml")
        flags = [f"--redis-url={valkey.url}", f"--models={models}", f"--room={streams}"]
        server = await asyncio.to_thread(ServerProcess, folder / "server", *flags)
        stack.enter_context(server)
        await load(server, streams, 5, gap)
        valkey_pid = valkey.process.pid
        before = use_of(server.pid), use_of(valkey_pid), valkey.client.info("memory")["used_memory"]
        await load(server, streams, tokens, gap)
        after = use_of(server.pid), use_of(valkey_pid), valkey.client.info("memory")["used_memory"]
    count = streams * tokens
    return Cost(
        server_us=(after[0] - before[0]).cpu / count * 1e6,
        valkey_us=(after[1] - before[1]).cpu / count * 1e6,
        kept_bytes=(after[2] - before[2]) / count,
        stream_kb=max(0, (after[0] - before[0]).memory_kb) / streams,
    )


async def load(server: ServerProcess, streams: int, tokens: int, gap: float) -> None:
    url = f"{server.base_url}/api/completion/st/generate"

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        prompt = chat("a", f"{number} [[tokens={tokens} delay={gap}]]")
        async with session.post(url, json={"promptList": [prompt]}) as response:
            async for _ in response.content:
                pass

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=KEY, connector=connector) as session:
        await asyncio.gather(*(one(session, number) for number in range(streams)))


def plan(cost: Cost, streams: int) -> Plan:
    """What so many streams at once need."""
    tokens = streams * TOKENS_PER_SECOND
    kept = tokens * KEPT_SECONDS * cost.kept_bytes
    return Plan(
        processes=math.ceil(tokens * cost.server_us / 1e6 / FILL),
        shards_for_work=math.ceil(tokens * cost.valkey_us / 1e6 / FILL),
        shards_for_memory=math.ceil(kept / (SHARD_MEMORY_GB * 1e9)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--gap", type=float, default=0.05)
    options = parser.parse_args()
    cost = asyncio.run(measure(options.streams, options.tokens, options.gap))
    print(f"server, processor time for a token   {cost.server_us:8.0f} us")
    print(f"Valkey, processor time for a token   {cost.valkey_us:8.0f} us")
    print(f"Valkey, memory kept for a token      {cost.kept_bytes:8.0f} bytes")
    print(f"server, growth for a stream          {cost.stream_kb:8.0f} kB")
    print(f"\n{'streams':>10} {'processes':>10} {'shards: work':>13} {'memory, 24 h':>13}")
    for streams in LOADS:
        each = plan(cost, streams)
        print(
            f"{streams:>10,} {each.processes:>10,} {each.shards_for_work:>13,} "
            f"{each.shards_for_memory:>13,}"
        )


if __name__ == "__main__":
    main()
