"""What any mission may look like, and what may happen to it: strategies for hypothesis.

The law: a mission's fate is drawn as a plain list of moves, so that it shrinks to the few that
matter, and `perform` makes of any list something that can happen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.unit.missions.playing import BROKEN, Play, prompt, recorded
from vision.missions.events import NodeEnded, NodeStatus
from vision.missions.stimuli import Arrived, AttemptFailed, AttemptSucceeded

KINDS = ("text", "reason", "usage", "succeed", "retry", "break", "cancel", "cancel all", "late")

texts = st.text(st.sampled_from('ab{}\\\n "é😀'), max_size=6)


@dataclass(frozen=True, slots=True)
class Move:
    """Something that happens to one of the nodes that run, or (`cancel`) to any."""

    kind: str
    which: int
    text: str


moves = st.lists(st.builds(Move, st.sampled_from(KINDS), st.integers(0, 40), texts), max_size=40)
on_errors = st.sampled_from(("skip", "skip", "fail", {"default": ""}, {"default": "instead"}))


@st.composite
def dags(draw: st.DrawFn, most: int = 9) -> list[dict[str, Any]]:
    """A `promptList` without cycles, in an order that has nothing to do with its dependencies."""
    count = draw(st.integers(1, most))
    prompts = []
    for index in range(count):
        earlier = [str(other) for other in range(index)]
        chosen = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
        named = draw(st.lists(st.sampled_from(chosen))) if chosen else []
        text = "ask " + " ".join(f"{{{{{name}}}}}" for name in named)
        retries, on_error = draw(st.integers(0, 2)), draw(on_errors)
        entry = prompt(str(index), *chosen, prompt=text, retries=retries, onError=on_error)
        prompts.append(entry)
    return draw(st.permutations(prompts))


def perform(play: Play, fate: list[Move]) -> None:
    """Let the moves happen; those that find nothing to happen to are passed over."""
    for move in fate:
        _perform(play, move)


def complete(play: Play) -> None:
    """Let all that runs succeed, until the mission ends."""
    while play.running:
        play.succeed(next(iter(play.running)), "z")


def _perform(play: Play, move: Move) -> None:
    everything, running = list(play.graph.nodes), list(play.running)
    anything = everything[move.which % len(everything)]
    if move.kind == "cancel":
        play.cancel(anything)
    elif move.kind == "cancel all":
        # An end so near would leave the other moves little to do.
        if move.which == 0:
            play.cancel()
    elif move.kind == "late":
        _tell_late(play, anything)
    elif running:
        _happen(play, running[move.which % len(running)], move)


def _happen(play: Play, node_id: str, move: Move) -> None:
    match move.kind:
        case "text":
            play.arrive(node_id, move.text)
        case "reason":
            play.arrive(node_id, move.text, "stop")
        case "usage":
            play.arrive(node_id, "", None, {"total_tokens": move.which})
        case "succeed":
            play.succeed(node_id, move.text)
        case "retry":
            play.fail(node_id, retryable=True)
        case "break":
            play.fail(node_id)


def _tell_late(play: Play, node_id: str) -> None:
    """What an attempt says that is over, or that never was, changes nothing."""
    before = len(play.log), len(play.starts), len(play.stops)
    late = play.running.get(node_id, 7) - 1
    play.tell(Arrived(node_id, late, "late", "stop", {"total_tokens": 1}, play.now))
    play.tell(AttemptFailed(node_id, late, BROKEN, True, None, 0.0, play.now))
    play.tell(AttemptSucceeded(node_id, late, play.now))
    assert (len(play.log), len(play.starts), len(play.stops)) == before


def check_end(play: Play) -> None:
    """What holds of every mission that has ended."""
    assert play.finished
    assert play.state.status.final
    ends = [event for event in play.log if isinstance(event, NodeEnded)]
    outcomes = {event.node_id: event.outcome for event in ends}
    assert len(ends) == len(outcomes) == len(play.graph.nodes)
    assert outcomes == recorded(play.log)
    for node_id, outcome in outcomes.items():
        assert outcome.final
        assert play.text_of(node_id) == outcome.content
        if outcome.status is NodeStatus.SKIPPED:
            causes = [outcomes[name].status for name in play.graph.nodes[node_id].dependencies]
            assert {NodeStatus.FAILED, NodeStatus.CANCELLED, NodeStatus.SKIPPED} & set(causes)
