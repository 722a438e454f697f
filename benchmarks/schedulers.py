"""The schedulers that are compared, each measured in a process of its own.

The law: the same works for all, one scheduler after the other; one that is not there has rows with
the reason. "x longest path" is the time of a run over what its longest path takes by itself: the
delays of its nodes, or as many calls of the upstream, one after the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.installed import LANGGRAPH, ROOT, Unusable, reason
from benchmarks.report import Row
from benchmarks.timing import Work

# All works of one scheduler, in full size on a machine that is busy.
MEASURE_SECONDS = 300.0

# What would talk to the network.
QUIET = {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1"}


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A module that measures as `timing` says, and the interpreter that has what it needs."""

    name: str
    module: str
    python: Path


OURS = Scheduler("Vision", "benchmarks.own_missions", Path(sys.executable))
PEERS = (
    Scheduler("LangGraph", "benchmarks.langgraph_peer", LANGGRAPH / "bin" / "python"),
    Scheduler("bare asyncio", "benchmarks.bare", Path(sys.executable)),
)


def rows(scheduler: Scheduler, works: Sequence[Work]) -> list[Row]:
    """One for each work; without figures when it cannot be measured."""
    try:
        costs = _measure(scheduler, works)
    except (Unusable, subprocess.TimeoutExpired) as error:
        return [Row(scheduler.name, note=reason(error))] * len(works)
    return [_row(scheduler, work, cost) for work, cost in zip(works, costs, strict=True)]


def _measure(scheduler: Scheduler, works: Sequence[Work]) -> list[dict[str, float]]:
    if not scheduler.python.exists():
        raise Unusable("not installed: make bench-peers")
    arguments = [word for work in works for word in work.arguments]
    done = subprocess.run(
        [scheduler.python, "-m", scheduler.module, *arguments],
        cwd=ROOT,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        timeout=MEASURE_SECONDS,
        check=False,
    )
    if done.returncode:
        raise Unusable(done.stderr or f"it ended with {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _row(scheduler: Scheduler, work: Work, cost: dict[str, float]) -> Row:
    figures = {"us/node": cost["cpu_us"], "wall ms": cost["wall_ms"]}
    if "valkey_us" in cost:
        figures["Valkey us/node"] = cost["valkey_us"]
    if work.delay:
        ideal = work.shape.critical_path * work.delay * 1e3
        figures["x longest path"] = cost["wall_ms"] / ideal
    return Row(scheduler.name, figures)
