"""The mission state machine, one rule a test; `properties/` has what holds of all missions."""

from __future__ import annotations

import time

import pytest

from tests.unit.missions.playing import BROKEN, Play, diamond, prompt
from vision.missions.events import (
    Failure,
    MissionStatus,
    NodeEnded,
    NodeStarted,
    NodeStatus,
    Outcome,
    Token,
)
from vision.missions.graph import build_graph, fingerprint
from vision.missions.mission import CANCELLED_BY_CLIENT
from vision.missions.stimuli import Arrived, AttemptFailed, AttemptSucceeded, Begin


def chain(length: int, **first: object) -> Play:
    prompts = [prompt("0", **first)] + [prompt(str(i), str(i - 1)) for i in range(1, length)]
    return Play(build_graph(prompts))


def alone(**fields: object) -> Play:
    return Play(build_graph([prompt("a", **fields)])).begin()


# --- dependencies ---------------------------------------------------------------------------------


def test_roots_start_at_once_in_the_order_of_the_list():
    play = Play(build_graph([prompt("c", "b"), prompt("b"), prompt("a")])).begin()
    assert [start.node.id for start in play.starts] == ["b", "a"]


def test_node_starts_when_its_last_dependency_has_succeeded_and_not_level_by_level():
    prompts = [prompt("a"), prompt("b"), prompt("a2", "a"), prompt("both", "a2", "b")]
    play = Play(build_graph(prompts)).begin()
    play.succeed("a").succeed("a2")  # b, of the first level, still runs
    assert list(play.running) == ["b"]
    play.succeed("b")
    assert list(play.running) == ["both"]


def test_results_of_dependencies_are_put_into_the_prompt():
    graph = build_graph([prompt("a"), prompt("b"), prompt("c", "a", "b", prompt="of {{b}}")])
    play = Play(graph).begin().succeed("b", "B{{a}}").succeed("a", "A")
    assert play.starts[-1].prompt == "A\n\nof B{{a}}"


def test_mission_of_which_all_succeeded_has_succeeded():
    play = Play(diamond()).begin().succeed("a", "x").succeed("b").succeed("c").succeed("d")
    assert play.seen == [
        "a:x",
        "a[succeeded]",
        "b[succeeded]",
        "c[succeeded]",
        "d[succeeded]",
        "[succeeded]",
    ]


def test_outcome_tells_what_came_and_when():
    play = alone()
    play.arrive("a", "x").arrive("a", "y", "length").arrive("a", "", None, {"total_tokens": 3})
    play.succeed("a")
    assert play.state.outcomes["a"] == Outcome(
        NodeStatus.SUCCEEDED,
        "xy",
        1,
        1_000,
        5_000,
        "length",
        {"total_tokens": 3},
        fingerprint=fingerprint(play.graph.nodes["a"], "ask a"),
    )
    tokens = [event for event in play.log if isinstance(event, Token)]
    assert tokens == [Token("a", "m", "x", None, 2), Token("a", "m", "y", "length", 3)]


def test_usage_alone_is_nothing_to_see():
    assert alone().arrive("a", "", None, {"total_tokens": 3}).seen == []


def test_start_is_recorded_and_not_seen():
    play = alone()
    asked = fingerprint(play.graph.nodes["a"], "ask a")
    running = Outcome(NodeStatus.RUNNING, attempts=1, started=1_000, fingerprint=asked)
    assert play.log == [NodeStarted("a", running)]
    assert play.seen == []


# --- failures -------------------------------------------------------------------------------------


def test_failed_node_makes_all_that_need_it_skipped_and_the_rest_goes_on():
    prompts = [prompt("a"), prompt("b", "a"), prompt("c", "b", "other"), prompt("other")]
    play = Play(build_graph(prompts)).begin().fail("a")
    assert play.seen == ["a[failed]", "b[skipped]", "c[skipped]"]
    assert play.state.outcomes["b"].error == Failure(
        "dependency_failed", 'the dependency "a" has no result'
    )
    assert play.state.outcomes["c"].error == Failure(
        "dependency_failed", 'the dependency "b" has no result'
    )
    assert play.succeed("other").seen[-2:] == ["other[succeeded]", "[failed]"]


def test_failed_node_keeps_the_text_that_was_seen_and_says_why():
    play = alone().arrive("a", "half").fail("a")
    assert play.seen == ["a:half", "a[failed]", "[failed]"]
    outcome = play.state.outcomes["a"]
    assert (outcome.content, outcome.error) == ("half", BROKEN)


def test_on_error_fail_ends_the_mission_and_stops_what_runs():
    prompts = [prompt("a", onError="fail"), prompt("b"), prompt("c", "b")]
    play = Play(build_graph(prompts)).begin().arrive("b", "x").fail("a")
    assert play.seen == ["b:x", "a[failed]", "b[cancelled]", "c[cancelled]", "[failed]"]
    assert play.stops == ["b"]
    assert play.state.outcomes["c"].error == Failure(
        "mission_failed", 'the mission ended because "a" failed'
    )


def test_on_error_default_stands_in_for_the_result():
    play = Play(diamond(onError={"default": "none"})).begin().fail("a")
    assert play.seen == ["a:none", "a[defaulted]"]
    assert [start.prompt for start in play.starts[1:]] == ["none\n\nask b", "none\n\nask c"]
    play.succeed("b").succeed("c").succeed("d")
    assert play.state.status is MissionStatus.SUCCEEDED
    assert play.state.outcomes["a"].error == BROKEN


def test_on_error_default_voids_what_was_seen_before():
    play = alone(onError={"default": "none"}).arrive("a", "ha", "stop", {"total_tokens": 1})
    play.fail("a")
    assert play.seen == ["a:ha", "a[restarted]", "a:none", "a[defaulted]", "[succeeded]"]
    outcome = play.state.outcomes["a"]
    assert (outcome.content, outcome.finish_reason, outcome.usage) == ("none", None, None)


def test_on_error_of_a_node_that_is_skipped_does_nothing():
    prompts = [prompt("a"), prompt("b", "a", onError="fail"), prompt("c", "a"), prompt("d")]
    play = Play(build_graph(prompts)).begin().fail("a")
    assert play.seen == ["a[failed]", "b[skipped]", "c[skipped]"]
    assert list(play.running) == ["d"]


# --- attempts -------------------------------------------------------------------------------------


def test_attempt_that_failed_unseen_is_tried_again_without_an_event():
    play = alone().fail("a", retryable=True)
    assert play.seen == []
    assert [start.attempt for start in play.starts] == [1, 2]
    assert play.starts[1].prompt == play.starts[0].prompt


def test_attempt_that_failed_after_its_text_was_seen_is_restarted_with_an_event():
    play = alone().arrive("a", "half").fail("a", retryable=True).succeed("a", "whole")
    assert play.seen == ["a:half", "a[restarted]", "a:whole", "a[succeeded]", "[succeeded]"]
    assert play.state.outcomes["a"].content == "whole"
    assert play.state.outcomes["a"].attempts == 2


def test_end_reason_and_usage_of_a_failed_attempt_are_void():
    play = alone().arrive("a", "", "length", {"total_tokens": 9}).fail("a", retryable=True)
    play.succeed("a")
    outcome = play.state.outcomes["a"]
    assert (outcome.finish_reason, outcome.usage) == (None, None)


def test_retries_are_bounded():
    play = alone(retries=2)
    for _ in range(3):
        play.fail("a", retryable=True)
    assert play.seen == ["a[failed]", "[failed]"]
    assert play.state.outcomes["a"].attempts == 3


def test_failure_that_trying_again_cannot_help_is_final():
    assert alone(retries=2).fail("a", retryable=False).seen == ["a[failed]", "[failed]"]


def test_first_try_is_at_once_and_the_others_wait_longer_and_longer():
    play = alone(retries=3)
    for _ in range(3):
        play.fail("a", retryable=True)
    assert [start.delay for start in play.starts] == [0.0, 0.375, 0.75, 1.5]


def test_wait_that_the_upstream_asks_for_is_kept():
    play = alone().fail("a", retryable=True, wish=7.0)
    assert play.starts[-1].delay >= 7.0


@pytest.mark.parametrize("attempt", [0, 1, 3])
def test_what_another_than_the_current_attempt_says_is_ignored(attempt: int):
    play = alone().fail("a", retryable=True)
    before = list(play.log)
    play.tell(Arrived("a", attempt, "late", "stop", {"total_tokens": 1}, 5_000))
    play.tell(AttemptSucceeded("a", attempt, 5_000))
    play.tell(AttemptFailed("a", attempt, BROKEN, True, None, 0.0, 5_000))
    assert play.log == before
    assert play.succeed("a", "b").state.outcomes["a"].content == "b"


def test_stimulus_of_a_node_that_has_ended_or_not_begun_is_ignored():
    play = Play(diamond()).begin().succeed("a")
    before = list(play.log)
    for node_id, attempt in (("a", 1), ("d", 0), ("d", 1)):
        play.tell(Arrived(node_id, attempt, "late", None, None, 5_000))
        play.tell(AttemptSucceeded(node_id, attempt, 5_000))
    assert play.log == before


# --- cancelling -----------------------------------------------------------------------------------


def test_cancel_of_a_running_node_stops_its_call_and_skips_its_dependents():
    play = Play(diamond()).begin().succeed("a").arrive("b", "x").cancel("b")
    assert play.stops == ["b"]
    assert play.seen[1:] == ["b:x", "b[cancelled]", "d[skipped]"]
    assert play.state.outcomes["b"].error == CANCELLED_BY_CLIENT
    assert play.state.outcomes["b"].content == "x"
    assert play.succeed("c").seen[-1] == "[failed]"


def test_cancel_of_a_waiting_node_stops_nothing():
    play = Play(diamond()).begin().cancel("d")
    assert (play.seen, play.stops) == (["d[cancelled]"], [])
    assert play.state.outcomes["d"].started is None


def test_cancel_of_the_last_node_ends_the_mission():
    assert alone().cancel("a").seen == ["a[cancelled]", "[failed]"]


def test_cancel_between_two_attempts_stops_the_wait():
    play = alone().fail("a", retryable=True).cancel("a")
    assert play.stops == ["a"]


@pytest.mark.parametrize("end", ["succeed", "fail", "cancel"])
def test_cancel_of_a_node_that_has_ended_changes_nothing(end: str):
    play = Play(diamond()).begin()
    getattr(play, end)("a")
    before = list(play.log)
    play.cancel("a")
    assert play.log == before


def test_cancel_of_the_mission_ends_every_node_that_has_not_ended():
    play = Play(diamond()).begin().succeed("a").succeed("b", "x").cancel()
    assert play.seen[-3:] == ["c[cancelled]", "d[cancelled]", "[cancelled]"]
    assert play.stops == ["c"]
    assert play.state.status is MissionStatus.CANCELLED
    assert play.state.outcomes["b"].content == "x"


def test_cancel_before_the_mission_began_ends_it():
    play = Play(diamond()).cancel()
    assert play.seen[-1] == "[cancelled]"
    assert len(play.seen) == 5
    assert play.begin().starts == []


def test_after_the_end_nothing_follows_from_anything():
    play = alone().cancel()
    before = list(play.log)
    play.begin().cancel().cancel("a").tell(AttemptSucceeded("a", 1, 9_000))
    assert play.log == before


# --- sizes ----------------------------------------------------------------------------------------


def test_two_thousand_wide_nodes_are_started_at_once_and_joined():
    wide = [str(i) for i in range(2_000)]
    play = Play(build_graph([*map(prompt, wide), prompt("end", *wide)])).begin()
    assert len(play.running) == 2_000
    begun = time.perf_counter()
    for node_id in wide:
        play.succeed(node_id, "x")
    assert time.perf_counter() - begun < 2
    assert list(play.running) == ["end"]
    assert play.starts[-1].prompt == "x\n\n" * 2_000 + "ask end"


def test_chain_of_ten_thousand_runs_to_its_end():
    play = chain(10_000).begin()
    for index in range(10_000):
        play.succeed(str(index))
    assert play.state.status is MissionStatus.SUCCEEDED


def test_chain_of_ten_thousand_is_skipped_whole():
    play = chain(10_000).begin().fail("0")
    ends = [event for event in play.log if isinstance(event, NodeEnded)]
    assert len(ends) == 10_000
    assert play.seen[-1] == "[failed]"


def test_chain_of_ten_thousand_is_cancelled_whole():
    play = chain(10_000).tell(Begin(1)).cancel()
    assert len(play.state.outcomes) == 10_000
