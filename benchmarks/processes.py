"""What a process has used: processor time and memory, as the kernel counts them.

Source: proc(5), /proc/[pid]/stat fields 14 and 15, /proc/[pid]/status VmRSS.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Use:
    """Seconds of processor time (user and system) since the start, and resident kilobytes."""

    cpu: float
    memory_kb: int

    def __sub__(self, before: Use) -> Use:
        return Use(self.cpu - before.cpu, self.memory_kb - before.memory_kb)


def use_of(pid: int) -> Use:
    """What the process has used until now; its children are not counted."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text()
    memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return Use((int(fields[11]) + int(fields[12])) / TICKS, int(memory.split()[1]))
