"""A mission goes on in other hands: what an earlier runner had recorded is kept."""

from __future__ import annotations

from tests.unit.missions.playing import Play, diamond, prompt, recorded
from vision.missions.events import Failure, NodeStatus, Outcome
from vision.missions.graph import build_graph
from vision.missions.stimuli import GiveUp


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


# --- a mission that is given up -------------------------------------------------------------------

LOST = Failure("runner_lost", "why")


def test_mission_that_is_given_up_fails_with_the_reason_at_every_node_that_has_not_ended():
    play = Play(diamond())
    play.tell(GiveUp(LOST, play.now))
    assert play.seen == ["a[failed]", "b[failed]", "c[failed]", "d[failed]", "[failed]"]
    assert {outcome.error for outcome in play.state.outcomes.values()} == {LOST}
    assert play.starts == []


def test_what_had_ended_before_the_mission_was_given_up_keeps_its_outcome():
    first = Play(diamond()).begin().succeed("a", "A").arrive("b", "part")
    second = Play(diamond(), recorded(first.log), list(first.log))
    second.tell(GiveUp(LOST, second.now))
    assert second.seen[len(first.seen) :] == [
        "b[restarted]",
        "b[failed]",
        "c[restarted]",
        "c[failed]",
        "d[failed]",
        "[failed]",
    ]
    assert second.state.outcomes["a"].content == "A"
    assert second.text_of("b") == second.state.outcomes["b"].content == ""


def test_mission_of_which_all_had_ended_is_only_finished_when_it_is_given_up():
    first = Play(diamond()).begin().succeed("a").succeed("b").succeed("c").succeed("d")
    second = Play(diamond(), recorded(first.log), first.log[:-1])
    second.tell(GiveUp(LOST, second.now))
    assert second.seen[-1] == "[succeeded]"
    assert second.finished
