"""What a benchmark found: a table to read, and JSON to compare, with what it was measured on.

The law: a figure stands beside those of its peers from the same run, and says its unit; a peer that
could not be measured is a row with the reason, never a missing one.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from benchmarks.installed import ROOT, versions


@dataclass(frozen=True, slots=True)
class Row:
    """One subject of a case: its figures by column, or why it has none."""

    subject: str
    figures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """What one case found. `title` says the load in one line; columns carry their units."""

    case: str
    title: str
    rows: Sequence[Row]

    def __str__(self) -> str:
        columns = list(dict.fromkeys(name for row in self.rows for name in row.figures))
        head = ["", *columns]
        lines = [
            [row.subject, *(_cell(row.figures.get(name)) for name in columns)] for row in self.rows
        ]
        widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head))]
        text = [f"{self.case}: {self.title}", _line(head, widths)]
        for row, line in zip(self.rows, lines, strict=True):
            text.append(_line(line, widths) + (f"  {row.note}" if row.note else ""))
        return "\n".join(text)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = zip(cells, widths, strict=True)
    return "  ".join(
        [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
    ).rstrip()


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def document(tables: Sequence[Table]) -> str:
    """All tables as JSON, with commit, machine, and the versions of all that was compared."""
    about = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    return json.dumps(about | {"tables": [asdict(table) for table in tables]}, indent=2)


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
