"""A mission goes on in other hands: what an earlier runner had recorded is kept."""

from __future__ import annotations

from tests.unit.missions.playing import Play, diamond, prompt
from vision.missions.events import NodeStatus, Outcome
from vision.missions.graph import build_graph


def outcome(status: NodeStatus, content: str = "", attempts: int = 1) -> Outcome:
    return Outcome(status, content, attempts, started=1)


def test_finished_nodes_keep_their_results_and_only_the_rest_runs():
    done = {
        "a": outcome(NodeStatus.SUCCEEDED, "A"),
        "b": outcome(NodeStatus.DEFAULTED, "B"),
        "c": outcome(NodeStatus.SUCCEEDED, "C"),
    }
    play = Play(diamond(), done).begin()
    assert [(start.node.id, start.prompt) for start in play.starts] == [("d", "B\n\nC\n\nask d")]
    assert play.succeed("d").seen == ["d[succeeded]", "[succeeded]"]


def test_node_that_was_cut_off_is_restarted_with_an_event_and_a_new_attempt():
    done = {"a": outcome(NodeStatus.RUNNING, attempts=2)}
    play = Play(diamond(), done).begin()
    assert play.seen == ["a[restarted]"]
    assert [(start.node.id, start.attempt) for start in play.starts] == [("a", 3)]
    assert play.succeed("a").state.outcomes["a"].started == 1


def test_node_that_was_cut_off_may_be_retried_as_often_as_any():
    play = Play(diamond(retries=1), {"a": outcome(NodeStatus.RUNNING, attempts=2)}).begin()
    assert play.fail("a", retryable=True).starts[-1].attempt == 4
    assert play.fail("a", retryable=True).seen[1] == "a[failed]"


def test_skips_that_a_dead_runner_owed_are_carried_out():
    play = Play(diamond(), {"a": outcome(NodeStatus.FAILED)}).begin()
    assert sorted(play.seen) == ["[failed]", "b[skipped]", "c[skipped]", "d[skipped]"]


def test_end_that_a_dead_runner_owed_for_on_error_fail_is_carried_out():
    done = {"a": outcome(NodeStatus.FAILED), "free": outcome(NodeStatus.RUNNING)}
    graph = build_graph([prompt("a", onError="fail"), prompt("free"), prompt("late", "free")])
    play = Play(graph, done).begin()
    assert play.starts == []
    assert play.seen == ["free[restarted]", "free[cancelled]", "late[cancelled]", "[failed]"]


def test_last_event_that_a_dead_runner_owed_is_written():
    play = Play(build_graph([prompt("a")]), {"a": outcome(NodeStatus.SUCCEEDED)}).begin()
    assert play.seen == ["[succeeded]"]


def test_cancel_of_a_node_that_was_cut_off_voids_its_text_first():
    """Whoever cancels has not got the text that subscribers saw, so its outcome is empty."""
    play = Play(diamond(), {"a": outcome(NodeStatus.RUNNING)}).cancel("a")
    assert play.seen[:2] == ["a[restarted]", "a[cancelled]"]
