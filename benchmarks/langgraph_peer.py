"""The graph as LangGraph runs it, in a process of its own interpreter.

The law: the same nodes and edges, in LangGraph's own words: a node that waits for several is
joined by one edge from all of them, and what nodes produce comes together through the reducer of
the state. No checkpoints, no tracing: nothing is kept. Compiling is not measured. Started as
`timing` says, with the interpreter that `make bench-peers` installs.
"""

from __future__ import annotations

import operator
from functools import partial
from typing import Annotated, Any, TypedDict

import uvloop
from langgraph.graph import START, StateGraph

from benchmarks.graphs import TEXT, Shape
from benchmarks.timing import Run, Work, measure, node, report, works


class State(TypedDict):
    """What all nodes have produced."""

    texts: Annotated[list[str], operator.add]


def compiled(work: Work) -> Any:
    """The graph, ready to be invoked."""

    async def run(state: State) -> State:
        return {"texts": [await node(work)]}

    graph = StateGraph(State)
    for name, before in work.shape.dependencies.items():
        graph.add_node(name, run)
        # A list of one is another kind of edge, and a dearer one.
        graph.add_edge(list(before) if len(before) > 1 else next(iter(before), START), name)
    return graph.compile()


def limits(shape: Shape) -> dict[str, int]:
    """A step for each node of the longest path and one for the start, where 25 is the default."""
    return {"recursion_limit": shape.critical_path + 1}


async def main() -> None:
    """Measure and tell."""
    for work in works():
        graph = compiled(work)
        report(await measure(work, partial(_prepare, work, graph)))


async def _prepare(work: Work, graph: Any) -> Run:
    async def run() -> None:
        result = await graph.ainvoke({"texts": []}, limits(work.shape))
        assert result["texts"] == [TEXT] * len(work.shape)

    return run


if __name__ == "__main__":
    uvloop.run(main())
