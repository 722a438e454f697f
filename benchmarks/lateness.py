"""When tokens came, beside how the upstream itself sends them.

The law: a reader of the upstream itself is the measure, in the same run and, where a case says no
other, under the same load. What
is added is the difference of the two medians, and of the two 99th percentiles: never a difference
of single tokens, which nobody could pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.load import Stream, spread


@dataclass(frozen=True, slots=True)
class Tokens:
    """Seconds until the first token of each stream, and between any two reads that brought some."""

    firsts: Sequence[float]
    gaps: Sequence[float]

    def __add__(self, more: Tokens) -> Tokens:
        return Tokens([*self.firsts, *more.firsts], [*self.gaps, *more.gaps])

    @classmethod
    def of(cls, streams: Iterable[Stream]) -> Tokens:
        """Streams without a token have none; the case says that they are lost."""
        firsts, gaps = [], []
        for each in streams:
            if each.first is not None:
                firsts.append(each.first)
            gaps += each.gaps
        return cls(firsts, gaps)


def columns(found: Tokens, direct: Tokens | None = None) -> dict[str, float]:
    """The figures of a row, in milliseconds; without `direct` those of the upstream itself."""
    reference = direct or found
    return {
        **beside("first", found.firsts, reference.firsts),
        **beside("gap", found.gaps, reference.gaps),
    }


def beside(what: str, found: Sequence[float], direct: Sequence[float]) -> dict[str, float]:
    """Of seconds. Of less than two there is nothing to tell, and nothing to be beside."""
    if len(found) < 2:
        return {}
    here = spread(found)
    itself = {f"{what} p50 ms": here.p50, f"{what} p99 ms": here.p99}
    if len(direct) < 2:
        return itself
    there = spread(direct)
    return itself | {
        f"{what} p50 behind direct ms": here.p50 - there.p50,
        f"{what} p99 behind direct ms": here.p99 - there.p99,
    }
