"""Whatever happens to whatever graph: the laws of the mission state machine."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from tests.unit.missions.playing import Play, recorded
from tests.unit.missions.properties.strategies import (
    Move,
    check_end,
    complete,
    dags,
    moves,
    perform,
)
from vision.missions.events import MissionFinished, MissionStatus, NodeStatus
from vision.missions.graph import build_graph


@given(dags(), moves)
def test_every_mission_ends_and_keeps_the_laws(prompts: list[dict[str, Any]], fate: list[Move]):
    play = Play(build_graph(prompts)).begin()
    perform(play, fate)
    complete(play)
    check_end(play)


@given(dags(), moves, st.integers(0, 200), moves, st.booleans())
def test_mission_recalled_at_any_point_ends_under_the_same_laws(
    prompts: list[dict[str, Any]], fate: list[Move], cut: int, rest: list[Move], early: bool
):
    """The runner dies after any of its log's entries; another goes on from what is recorded."""
    graph = build_graph(prompts)
    first = Play(graph).begin()
    perform(first, fate)
    kept = first.log[: cut % (len(first.log) + 1)]
    if kept and isinstance(kept[-1], MissionFinished):
        return  # it has ended: nobody claims it

    if (
        early
    ):  # a client cancels on a process that has not got the mission, and that will not run it
        canceller = Play(graph, recorded(kept), kept)
        perform(canceller, [move for move in rest if move.kind.startswith("cancel")])
        kept = canceller.log
    second = Play(graph, recorded(kept), kept)
    if not second.finished:
        second.begin()
        perform(second, rest)
        complete(second)
        check_end(second)


@given(dags())
def test_without_failures_every_node_is_started_once_and_succeeds(prompts: list[dict[str, Any]]):
    play = Play(build_graph(prompts)).begin()
    complete(play)
    assert sorted(start.node.id for start in play.starts) == sorted(play.graph.nodes)
    assert {outcome.status for outcome in play.state.outcomes.values()} == {NodeStatus.SUCCEEDED}
    assert play.state.status is MissionStatus.SUCCEEDED


@given(dags(), moves)
def test_same_stimuli_give_the_same_instructions(prompts: list[dict[str, Any]], fate: list[Move]):
    first, second = Play(build_graph(prompts)).begin(), Play(build_graph(prompts)).begin()
    perform(first, fate)
    perform(second, fate)
    assert first.log == second.log
    assert first.starts == second.starts
    assert first.stops == second.stops
