"""The small shapes as graphs that LangGraph's server serves, under the names of the shapes.

The law: the same graphs as in `langgraph_peer`; their nodes take no time.
"""

from __future__ import annotations

from benchmarks.graphs import DIAMOND, FAN_OUT, SHORT_CHAIN
from benchmarks.langgraph_peer import compiled
from benchmarks.timing import Work

chain, fan_out, diamond = (
    compiled(Work(shape, 0.0, 1)) for shape in (SHORT_CHAIN, FAN_OUT, DIAMOND)
)
