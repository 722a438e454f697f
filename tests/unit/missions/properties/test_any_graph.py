"""Any list of prompts is either a graph that can run, or is refused for what is really wrong."""

from __future__ import annotations

import graphlib
import itertools
from typing import Any

from hypothesis import given, strategies as st

from tests.unit.missions.playing import prompt
from vision.errors import InvalidRequest
from vision.missions.graph import Graph, build_graph

_IDS = st.sampled_from("abcdef")


@st.composite
def anything(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Prompts with unique ids, and dependencies among them at random."""
    ids = draw(st.lists(_IDS, unique=True, min_size=1))
    lists = st.lists(st.sampled_from(ids), unique=True, max_size=3)
    return [prompt(node_id, *draw(lists)) for node_id in ids]


def build(prompts: list[dict[str, Any]]) -> Graph | InvalidRequest:
    try:
        return build_graph(prompts)
    except InvalidRequest as refused:
        return refused


def by_id(prompts: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {entry["id"]: entry["dependenceIdList"] for entry in prompts}


def is_dag(dependencies: dict[str, list[str]]) -> bool:
    try:
        graphlib.TopologicalSorter(dependencies).prepare()
    except graphlib.CycleError:
        return False
    return True


@given(anything())
def test_graph_is_accepted_exactly_when_it_can_be_sorted(prompts: list[dict[str, Any]]):
    built = build(prompts)
    assert isinstance(built, Graph) == is_dag(by_id(prompts))


@given(anything())
def test_reported_cycle_is_one(prompts: list[dict[str, Any]]):
    refused, dependencies = build(prompts), by_id(prompts)
    if isinstance(refused, InvalidRequest) and "cycle: " in refused.message:
        cycle = refused.message.partition("cycle: ")[2].split(" -> ")
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1 >= 2
        for node_id, dependency in itertools.pairwise(cycle):
            assert dependency in dependencies[node_id]
        place = [entry["id"] for entry in prompts].index(cycle[0])
        assert refused.path == f"promptList[{place}].dependenceIdList"


@given(st.lists(st.builds(prompt, _IDS, _IDS, _IDS), max_size=6))
def test_whatever_is_wrong_is_told_with_its_place(prompts: list[dict[str, Any]]):
    """Duplicate ids, unknown and repeated dependencies included: a graph or a refusal."""
    built = build(prompts)
    if isinstance(built, InvalidRequest):
        assert built.path.startswith("promptList[")
    else:
        dependencies = {node.id: list(node.dependencies) for node in built.nodes.values()}
        assert dependencies == by_id(prompts)
        inverse = {(a, b) for a, names in built.dependents.items() for b in names}
        assert inverse == {(a, b) for b, names in dependencies.items() for a in names}
