"""All cases, or those that are named; how cost grows, too, with `--full`.

    python -m benchmarks [--full] [--json FILE] [CASE ...]

The law: one after another, since they share the processors; each table is printed when it is ready;
a case that breaks is a table with the reason, and the others run all the same. The exit status says
whether all of them could be measured.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from importlib import import_module

from benchmarks.alone import Case, add_flags, size_of, tables_of, write
from benchmarks.report import Row, Table
from benchmarks.rig import Size

# Each is a module of this package with a function `run`.
CASES = (
    "relay",  # cases 1, 2 and 8
    "fanout",  # 3
    "scheduler",  # 4
    "short",  # 5
    "idle",  # 6
    "cancel",  # 7
    "start",  # 9
)
GROWTH = (
    "growth",  # tokens, streams, nodes, subscribers, missions kept
    "pair",  # two processes
)
ALL = (*CASES, *GROWTH)

# A quick run of all cases is over in three minutes; how cost grows is asked for by name.
USUAL = {Size.QUICK: CASES, Size.FULL: ALL}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(ALL)}")
    add_flags(parser)
    options = parser.parse_args()
    if unknown := set(options.cases) - set(ALL):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    tables, broken = [], 0
    size = size_of(options)
    for name in options.cases or USUAL[size]:
        try:
            found = _measure(name, size)
        except Exception as error:
            traceback.print_exc()
            found = [Table(name, "could not be measured", [Row("all", note=repr(error))])]
            broken += 1
        for table in found:
            print(f"{table}\n", flush=True)
        tables += found
    write(tables, options)
    return 1 if broken else 0


def _measure(name: str, size: Size) -> list[Table]:
    """Imported here, so that a case that cannot be imported is one that breaks."""
    run: Case = import_module(f"benchmarks.{name}").run
    return tables_of(run, size)


if __name__ == "__main__":
    sys.exit(main())
