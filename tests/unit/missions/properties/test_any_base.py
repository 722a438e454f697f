"""Whatever changes in whatever graph: exactly what asks something else is asked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given, strategies as st

from tests.unit.missions.playing import Play
from tests.unit.missions.properties.strategies import (
    Move,
    check_end,
    complete,
    dags,
    moves,
    perform,
)
from vision.missions.events import NodeStatus, Outcome
from vision.missions.graph import build_graph


def vague(prompt: str) -> str:
    """An answer that often stays the same when the question changes."""
    return "ab"[prompt.count("!") % 2]


def telling(prompt: str) -> str:
    """An answer that never does."""
    return f"({prompt})"


def ran(
    prompts: list[dict[str, Any]], answer: Any, base: Mapping[str, Outcome] | None = None
) -> Play:
    play = Play(build_graph(prompts), base=base).begin().answer_all(answer)
    check_end(play)
    return play


def questions(play: Play) -> dict[str, str]:
    return {start.node.id: start.prompt for start in play.starts}


def needing(prompts: list[dict[str, Any]], roots: set[str]) -> set[str]:
    """The nodes, and all that depend on them, near and far."""
    found = set(roots)
    while (
        more := {entry["id"] for entry in prompts if found & {*entry["dependenceIdList"]}} - found
    ):
        found |= more
    return found


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]], set[str]]:
    """A `promptList`, the same with some prompts changed, and the ids of those."""
    prompts = draw(dags(6))
    ids = [entry["id"] for entry in prompts]
    chosen = set(draw(st.lists(st.sampled_from(ids), unique=True)))
    mark = draw(st.sampled_from(("!", "!!")))
    changed = [
        entry | {"prompt": entry["prompt"] + mark} if entry["id"] in chosen else entry
        for entry in prompts
    ]
    return prompts, changed, chosen


@given(edits(), st.sampled_from((vague, telling)))
def test_exactly_what_changed_and_what_asks_something_else_since_is_asked(
    edit: tuple[list[dict[str, Any]], list[dict[str, Any]], set[str]], answer: Any
):
    prompts, changed, chosen = edit
    before, afresh = ran(prompts, answer), ran(changed, answer)
    again = ran(changed, answer, before.state.outcomes)
    old, new = questions(before), questions(afresh)
    assert set(again.asked) == {node_id for node_id in new if new[node_id] != old[node_id]}
    assert len(again.asked) == len(set(again.asked))
    assert chosen <= set(again.asked) <= needing(changed, chosen)
    if answer is telling:
        assert set(again.asked) == needing(changed, chosen)


@given(edits(), st.sampled_from((vague, telling)))
def test_results_are_those_of_a_mission_without_a_base(
    edit: tuple[list[dict[str, Any]], list[dict[str, Any]], set[str]], answer: Any
):
    prompts, changed, _ = edit
    afresh = ran(changed, answer)
    again = ran(changed, answer, ran(prompts, answer).state.outcomes)
    for node_id, outcome in afresh.state.outcomes.items():
        assert again.text_of(node_id) == outcome.content
        assert again.state.outcomes[node_id].content == outcome.content
        assert again.state.outcomes[node_id].fingerprint == outcome.fingerprint


@given(dags(), moves, moves)
def test_any_base_keeps_the_laws_of_any_mission(
    prompts: list[dict[str, Any]], past: list[Move], fate: list[Move]
):
    """The base may have been retried, broken, cancelled, or not have ended."""
    base = Play(build_graph(prompts)).begin()
    perform(base, past)
    play = Play(build_graph(prompts), base=base.state.outcomes).begin()
    perform(play, fate)
    complete(play)
    check_end(play)
    kept = {id_ for id_, o in play.state.outcomes.items() if o.status is NodeStatus.CACHED}
    assert all(base.state.outcomes[id_].status is NodeStatus.SUCCEEDED for id_ in kept)
    assert not kept & set(play.asked)
