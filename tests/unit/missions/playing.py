"""Plays missions without a shell: graphs written briefly, and a driver that holds them to the law.

The law: the driver carries out instructions by remembering them. What must hold at every step, of
any mission, it checks itself: a test that uses it proves that as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vision.missions.events import (
    Failure,
    MissionFinished,
    NodeEnded,
    NodeRestarted,
    NodeStarted,
    NodeStatus,
    Outcome,
    Token,
)
from vision.missions.graph import Graph, build_graph
from vision.missions.mission import MissionState
from vision.missions.stimuli import (
    Arrived,
    AttemptFailed,
    AttemptSucceeded,
    Begin,
    Cancel,
    Log,
    StartAttempt,
    Stimulus,
    StopAttempt,
)

RESULTS = (NodeStatus.SUCCEEDED, NodeStatus.CACHED, NodeStatus.DEFAULTED)
BROKEN = Failure("upstream_error", "it broke")

Logged = Token | NodeStarted | NodeRestarted | NodeEnded | MissionFinished


def prompt(node_id: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    """One entry of a `promptList`."""
    entry = {"id": node_id, "mid": "m", "prompt": f"ask {node_id}"}
    return entry | {"dependenceIdList": list(dependencies)} | fields


def diamond(**fields: Any) -> Graph:
    """a, then b and c, then d; `fields` are added to a."""
    prompts = [prompt("a", **fields), prompt("b", "a"), prompt("c", "a"), prompt("d", "b", "c")]
    return build_graph(prompts)


def recorded(log: Iterable[Logged]) -> dict[str, Outcome]:
    """The outcomes that are stored with these events."""
    told = (NodeStarted, NodeRestarted, NodeEnded)
    return {event.node_id: event.outcome for event in log if isinstance(event, told)}


@dataclass
class Play:
    """One mission in the hands of a driver that only takes notes."""

    graph: Graph
    outcomes: Mapping[str, Outcome] | None = None
    log: list[Logged] = field(default_factory=list)  # what an earlier runner had logged
    starts: list[StartAttempt] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    now: int = 1_000
    base: Mapping[str, Outcome] | None = None

    def __post_init__(self) -> None:
        self.state = MissionState(self.graph, self.outcomes, self.base)
        self.ended = {event.node_id for event in self.log if isinstance(event, NodeEnded)}

    # --- stimuli ---------------------------------------------------------------------------------

    def begin(self) -> Play:
        return self.tell(Begin(self.now))

    def arrive(self, node_id: str, text: str, reason: str | None = None, usage: Any = None) -> Play:
        attempt = self.running[node_id]
        return self.tell(Arrived(node_id, attempt, text, reason, usage, self.now))

    def succeed(self, node_id: str, text: str = "") -> Play:
        if text:
            self.arrive(node_id, text)
        return self.tell(AttemptSucceeded(node_id, self.running[node_id], self.now))

    def fail(self, node_id: str, *, retryable: bool = False, wish: float | None = None) -> Play:
        attempt = self.running[node_id]
        return self.tell(AttemptFailed(node_id, attempt, BROKEN, retryable, wish, 0.5, self.now))

    def cancel(self, node_id: str | None = None) -> Play:
        return self.tell(Cancel(node_id, self.now))

    def tell(self, stimulus: Stimulus) -> Play:
        self.now += 1_000
        for instruction in self.state.handle(stimulus):
            assert not self.finished, "nothing follows the end"
            match instruction:
                case Log():
                    self._logged(instruction.event)
                case StartAttempt():
                    self._started(instruction)
                case StopAttempt():
                    assert instruction.node_id in self.running, "only what runs is stopped"
                    del self.running[instruction.node_id]
                    self.stops.append(instruction.node_id)
        return self

    def answer_all(self, answer: Callable[[str], str] = lambda prompt: f"re {prompt}") -> Play:
        """Let every call succeed, with an answer that follows from its prompt, until the end."""
        while self.running:
            node_id = next(iter(self.running))
            [*_, start] = (start for start in self.starts if start.node.id == node_id)
            self.succeed(node_id, answer(start.prompt))
        return self

    # --- what follows ----------------------------------------------------------------------------

    def _logged(self, event: Logged) -> None:
        self.log.append(event)
        if isinstance(event, MissionFinished):
            assert not self.running, "no call outlives its mission"
        elif not isinstance(event, NodeEnded):
            assert event.node_id not in self.ended, "nothing follows a node's end"
        else:
            assert event.node_id not in self.ended, "a node ends once"
            self.ended.add(event.node_id)
            self.running.pop(event.node_id, None)

    def _started(self, start: StartAttempt) -> None:
        assert start.node.id not in self.ended, "what has ended is not started again"
        for dependency in start.node.dependencies:
            assert self.state.outcomes[dependency].status in RESULTS, "dependencies come first"
        self.running[start.node.id] = start.attempt
        self.starts.append(start)

    # --- what can be seen ------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        return bool(self.log) and isinstance(self.log[-1], MissionFinished)

    @property
    def asked(self) -> list[str]:
        """The nodes whose model was called, in the order of the calls."""
        return [start.node.id for start in self.starts]

    @property
    def statuses(self) -> dict[str, str]:
        return {id_: outcome.status.value for id_, outcome in self.state.outcomes.items()}

    @property
    def seen(self) -> list[str]:
        """The log in short, as a subscriber sees it: `a:text`, `a[succeeded]`, `[failed]`."""
        return [short(event) for event in self.log if not isinstance(event, NodeStarted)]

    def text_of(self, node_id: str) -> str:
        """What a subscriber holds of a node: its tokens since its last restart."""
        text = ""
        for event in self.log:
            if isinstance(event, NodeRestarted) and event.node_id == node_id:
                text = ""
            elif isinstance(event, Token) and event.node_id == node_id:
                text += event.text
        return text


def short(event: Logged) -> str:
    """An event in a few characters."""
    match event:
        case Token():
            return f"{event.node_id}:{event.text}"
        case NodeStarted():
            return f"{event.node_id}[started]"
        case NodeRestarted():
            return f"{event.node_id}[restarted]"
        case NodeEnded():
            return f"{event.node_id}[{event.outcome.status}]"
        case MissionFinished():
            return f"[{event.status}]"
