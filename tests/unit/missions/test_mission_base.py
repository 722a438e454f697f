"""Run again, only what changed: a node that asks the same as in the base mission keeps its result.

`properties/test_any_base.py` has what holds of all graphs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.missions.playing import Play, prompt, recorded
from vision.missions.events import NodeStatus, Outcome, Token
from vision.missions.graph import build_graph

ABC = [prompt("a"), prompt("b", "a"), prompt("c", "b")]


def ran(prompts: list[dict[str, Any]], base: Mapping[str, Outcome] | None = None) -> Play:
    """A mission whose calls all succeed, with an answer that follows from the prompt."""
    return Play(build_graph(prompts), base=base).begin().answer_all()


def base_of(*prompts: dict[str, Any]) -> Mapping[str, Outcome]:
    return ran(list(prompts)).state.outcomes


def test_mission_that_asks_the_same_is_finished_at_once_without_a_call():
    again = ran(ABC, base_of(*ABC))
    assert again.asked == []
    assert again.seen == [
        "a:re ask a",
        "a[cached]",
        "b:re re ask a\n\nask b",
        "b[cached]",
        "c:re re re ask a\n\nask b\n\nask c",
        "c[cached]",
        "[succeeded]",
    ]


def test_cached_node_tells_its_result_in_one_token_and_costs_nothing():
    first = Play(build_graph([prompt("a")])).begin()
    first.arrive("a", "x").arrive("a", "y", "length", {"total_tokens": 3}).succeed("a")
    again = ran([prompt("a")], first.state.outcomes)
    outcome = again.state.outcomes["a"]
    assert again.log[0] == Token("a", "m", "xy", "length", 1)
    assert (outcome.status, outcome.content, outcome.finish_reason) == ("cached", "xy", "length")
    assert (outcome.attempts, outcome.usage) == (0, None)
    assert outcome.started == outcome.finished == 1_000
    assert outcome.fingerprint == first.state.outcomes["a"].fingerprint


def test_changed_prompt_runs_and_so_does_what_needs_it_and_nothing_else():
    prompts = [prompt("a"), prompt("b", "a"), prompt("c", "a"), prompt("d", "b", "c")]
    changed = [*prompts]
    changed[1] = prompt("b", "a", prompt="ask b anew")
    again = ran(changed, base_of(*prompts))
    assert again.asked == ["b", "d"]
    assert again.statuses == {"a": "cached", "b": "succeeded", "c": "cached", "d": "succeeded"}


def test_node_runs_by_what_its_dependencies_gave_and_not_by_whether_they_ran():
    base = Play(build_graph(ABC)).begin().succeed("a", "A").succeed("b", "B").succeed("c", "C")
    changed = [prompt("a", prompt="ask a anew"), *ABC[1:]]
    again = Play(build_graph(changed), base=base.state.outcomes).begin()
    again.succeed("a", "A")  # another question, the same answer
    assert again.asked == ["a"]
    assert again.statuses == {"a": "succeeded", "b": "cached", "c": "cached"}
    assert again.finished


@pytest.mark.parametrize(
    "change",
    [
        {"mid": "another"},
        {"params": {"temperature": 0.5}},
        {"params": {"temperature": 0.7, "top_p": 1}},
        {"params": {}},
        {"prompt": "ask a "},
    ],
    ids=str,
)
def test_what_asks_for_something_else_runs(change: dict[str, Any]):
    before = prompt("a", params={"temperature": 0.7})
    assert ran([before | change], base_of(before)).asked == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        {"retries": 0},
        {"timeout": 5},
        {"onError": "fail"},
        {"params": {"stop": ["x"], "temperature": 0.7}},
    ],
    ids=str,
)
def test_what_changes_nothing_of_the_question_does_not_run(change: dict[str, Any]):
    before = prompt("a", params={"temperature": 0.7, "stop": ["x"]})
    assert ran([before | change], base_of(before)).asked == []


def test_dependencies_in_another_order_are_another_prompt():
    prompts = [prompt("a"), prompt("b"), prompt("c", "a", "b")]
    turned = [*prompts[:2], prompt("c", "b", "a")]
    assert ran(turned, base_of(*prompts)).asked == ["c"]


@pytest.mark.parametrize("end", ["failed", "defaulted", "cancelled", "skipped"])
def test_only_what_succeeded_is_kept(end: str):
    base = Play(build_graph([prompt("root"), prompt("a", "root", onError={"default": "x"})]))
    base.begin()
    if end == "skipped":
        base.cancel("root")
    else:
        base.succeed("root", "re ask root")
    if end == "cancelled":
        base.cancel("a")
    elif end == "defaulted":
        base.fail("a")
    outcomes = dict(base.state.outcomes)
    if end == "failed":
        told = base.state._running("a")
        outcomes["a"] = Outcome(NodeStatus.FAILED, "part", fingerprint=told.fingerprint)
    assert outcomes["a"].status == end
    again = ran([prompt("root"), prompt("a", "root", onError={"default": "x"})], outcomes)
    assert "a" in again.asked
    assert again.statuses["a"] == "succeeded"


def test_what_still_runs_in_the_base_is_not_kept():
    running = Play(build_graph([prompt("a")])).begin().arrive("a", "part")
    assert ran([prompt("a")], recorded(running.log)).asked == ["a"]


def test_cached_result_can_be_kept_again():
    second = ran(ABC, base_of(*ABC))
    third = ran(ABC, second.state.outcomes)
    assert third.asked == []
    assert third.seen == second.seen


def test_node_that_is_new_runs_and_one_that_is_gone_does_not_matter():
    again = ran([prompt("new"), prompt("b")], base_of(prompt("a"), prompt("b")))
    assert again.asked == ["new"]


def test_node_that_has_the_question_of_another_id_runs():
    assert ran([prompt("b", prompt="ask a")], base_of(prompt("a"))).asked == ["b"]


def test_result_with_an_escape_or_a_placeholder_in_it_is_kept_as_it_is():
    base = Play(build_graph(ABC[:2])).begin().succeed("a", "\\{{a}} {{b}}").succeed("b", "B")
    again = Play(build_graph(ABC[:2]), base=base.state.outcomes).begin()
    assert again.text_of("a") == "\\{{a}} {{b}}"
    assert again.statuses == {"a": "cached", "b": "cached"}


def test_runner_that_takes_over_compares_with_the_base_as_the_first_one_did():
    base = base_of(*ABC)
    changed = [ABC[0], prompt("b", "a", prompt="ask b anew"), ABC[2], prompt("d")]
    first = Play(build_graph(changed), base=base).begin()
    second = Play(build_graph(changed), recorded(first.log), list(first.log), base=base).begin()
    second.answer_all()
    assert second.asked == ["b", "d", "c"]
    assert second.statuses == {"a": "cached", "b": "succeeded", "c": "succeeded", "d": "succeeded"}


def test_chain_of_a_thousand_cached_nodes_is_one_step():
    chain = [prompt("0"), *(prompt(str(n), str(n - 1), prompt="x") for n in range(1, 1_000))]
    play = Play(build_graph(chain)).begin()
    while play.running:
        play.succeed(next(iter(play.running)), "y")
    began = time.monotonic()
    again = Play(build_graph(chain), base=play.state.outcomes).begin()
    assert time.monotonic() - began < 1
    assert again.finished
    assert again.asked == []
    assert set(again.statuses.values()) == {"cached"}
