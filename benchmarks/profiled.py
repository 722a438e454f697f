"""Where the server's time goes under one load, as py-spy sees it.

    python -m benchmarks.profiled {paced,burst,new,chain} [--native] [WORD ...]

The law: only the server's main thread while the load runs, sampled from outside. For each word: the
part of the samples in whose stack a frame has it in its name or file ("redis/asyncio",
"stream_chunks"). Without words: the frames that are in the most stacks. Parts of one stack overlap,
so they do not add up. `--native` shows C functions, too, and slows the server more.

py-spy reads another process's memory, which Linux may allow to root only (ptrace_scope). It comes
with the tools for development.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import uvloop

from benchmarks.graph_servers import mission
from benchmarks.graphs import CHAIN
from benchmarks.load import Target, streams
from benchmarks.peers import ROOM
from benchmarks.rig import generate, rig
from tests.processes import ServerProcess

# Samples a second: a prime, which beats with no timer of the server.
RATE = 97
SECONDS = 10

# Beyond the time for which it was asked; it writes its file at the end.
SPARE_SECONDS = 20

# Frames that are told without words.
MOST = 40

# How often each is asked for at once, and what for.
LOADS: Mapping[str, tuple[int, Callable[[ServerProcess], Target]]] = {
    "paced": (100, lambda server: generate(server, 100, 20)),
    "burst": (50, lambda server: generate(server, 200, 0)),
    "new": (32, lambda server: generate(server, 1, 0)),  # what a mission costs by itself
    "chain": (1, lambda server: mission(server, CHAIN)),
}


async def profile(load: str, native: Sequence[str]) -> list[tuple[list[str], int]]:
    """Stacks of the main thread, outermost frame first, and how many samples had each."""
    count, target_of = LOADS[load]
    with rig() as made, made.server(f"--room={ROOM}") as server:
        target, file = target_of(server), made.folder / "stacks"
        await streams(target, count)
        asked = asyncio.create_task(_ask(target, count))
        try:
            await _record(server.pid, file, native)
        finally:
            asked.cancel()
            with suppress(asyncio.CancelledError):
                await asked
        return list(_main_thread(file))


async def _ask(target: Target, count: int) -> None:
    while True:
        await streams(target, count)


async def _record(pid: int, file: Path, native: Sequence[str]) -> None:
    program = Path(sys.executable).with_name("py-spy")
    argv = ["record", "-p", str(pid), "-r", str(RATE), "-d", str(SECONDS), "-f", "raw"]
    process = await asyncio.create_subprocess_exec(program, *argv, *native, "-o", file)
    try:
        async with asyncio.timeout(SECONDS + SPARE_SECONDS):
            if await process.wait():
                raise SystemExit("py-spy could not look at the server; it may need root")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _main_thread(file: Path) -> Iterator[tuple[list[str], int]]:
    """Lines are `frame;frame;frame COUNT`; other threads do not begin in server.py."""
    for line in file.read_text().splitlines():
        stack, _, samples = line.rpartition(" ")
        if "main (server.py" in stack:
            yield stack.split(";"), int(samples)


def parts(stacks: Sequence[tuple[list[str], int]], words: Sequence[str]) -> Iterator[str]:
    """A line for each word, or for the frames that are in the most stacks."""
    found: Counter[str] = Counter()
    for frames, samples in stacks:
        names = {frame.rpartition(":")[0] for frame in frames}
        for each in words or names:
            if not words or any(each in name for name in names):
                found[each] += samples
    total = sum(samples for _, samples in stacks)
    for name in words or [name for name, _ in found.most_common(MOST)]:
        yield f"{found[name] / total:6.1%}  {name}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("load", choices=LOADS)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--native", action="store_const", const=["--native"], default=[])
    options = parser.parse_intermixed_args()
    stacks = uvloop.run(profile(options.load, options.native))
    print("\n".join(parts(stacks, options.words)))


if __name__ == "__main__":
    main()
