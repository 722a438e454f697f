"""What the rows of one table took, and how that grows from row to row.

The law: a cost is processor time over units that were counted, not over those that were asked for.
"to first" is what a unit costs over what it costs in the first row. "each further" is the
difference of two rows over the difference of their units: what a unit costs apart from what comes
with a run anyway, of however many units it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.processes import exact_cpus
from benchmarks.report import Row


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one row. `runs` is how often its load was run, `units` how many came of that in all."""

    subject: str
    units: int
    runs: int
    server: float  # seconds of processor time
    children: float
    wall: float  # seconds, of all runs
    note: str = ""
    late: Mapping[str, float] = field(default_factory=dict)  # when tokens came, of `lateness`

    @property
    def each(self) -> float:
        """Microseconds of the server for a unit."""
        return self.server / self.units * 1e6

    def further(self, smaller: Cost) -> float:
        """Microseconds of the server for a unit that a run has more than one of `smaller`."""
        more = self.units / self.runs - smaller.units / smaller.runs
        return (self.server / self.runs - smaller.server / smaller.runs) / more * 1e6


class Meter:
    """Begins when it is made, and tells what a server has used since."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before, self._begin = exact_cpus(pid), time.perf_counter()

    def cost(self, subject: str, units: int, runs: int = 1, note: str = "") -> Cost:
        """Until now."""
        own, children = exact_cpus(self._pid)
        before_own, before_children = self._before
        wall = time.perf_counter() - self._begin
        return Cost(subject, units, runs, own - before_own, children - before_children, wall, note)


def rows(costs: Sequence[Cost], unit: str) -> list[Row]:
    """Of loads that differ in something else than the units of a run."""
    return [Row(cost.subject, _figures(cost, costs[0], unit), cost.note) for cost in costs]


def rows_of_sizes(costs: Sequence[Cost], unit: str) -> list[Row]:
    """Of runs of more and more units."""
    found = []
    for number, cost in enumerate(costs):
        figures = _figures(cost, costs[0], unit)
        if number:
            figures[f"each further us/{unit}"] = cost.further(costs[number - 1])
        found.append(Row(cost.subject, figures, cost.note))
    return found


def _figures(cost: Cost, first: Cost, unit: str) -> dict[str, float]:
    return {
        f"CPU us/{unit}": cost.each,
        "to first": cost.each / first.each,
        f"children us/{unit}": cost.children / cost.units * 1e6,
        "wall s/run": cost.wall / cost.runs,
        **cost.late,
    }
