"""The mission state machine: what happens next, decided without doing anything.

The law: `MissionState.handle(stimulus) -> list[Instruction]` is the only way a mission moves. It
reads no clock, draws no random number and touches no network: times and jitter come in with the
stimulus, what is to be done goes out as instructions, and the shell (`run`) carries them out
and feeds the results back. The same stimuli always give the same instructions.

    node:    waiting -> running -> succeeded | defaulted | failed
             waiting -> skipped (a dependency did not succeed)
             waiting | running -> cancelled
             running -> running (an attempt failed, or its runner died: the next attempt)
    mission: running -> succeeded | failed | cancelled

A node starts as soon as all its dependencies have results, in the order of `promptList` where
several may. An attempt that failed after its text was seen is restarted with an event, never
continued. A stimulus of an attempt that is no longer the node's current one is ignored: the shell
may deliver late what it had already begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

import msgspec

from vision.missions.events import (
    Failure,
    MissionFinished,
    MissionStatus,
    NodeEnded,
    NodeRestarted,
    NodeStarted,
    NodeStatus,
    Outcome,
    Token,
)
from vision.missions.graph import Graph, Node
from vision.missions.prompts import NOTHING, Prompts, Question
from vision.missions.stimuli import (
    Arrived,
    AttemptFailed,
    AttemptSucceeded,
    Begin,
    Cancel,
    GiveUp,
    Instruction,
    Log,
    StartAttempt,
    Stimulus,
    StopAttempt,
)
from vision.models.backoff import retry_delay

# Codes that only nodes have.
DEPENDENCY_FAILED = "dependency_failed"
MISSION_FAILED = "mission_failed"
CANCELLED_BY_CLIENT = Failure("cancelled", "cancelled by the client")

# Looked up once: to name a member of an enumeration takes longer than to compare with it, and these
# are asked for several times a node.
_WAITING, _RUNNING = NodeStatus.WAITING, NodeStatus.RUNNING
_CANCELLED = NodeStatus.CANCELLED


class _Progress(msgspec.Struct):
    """The moving part of one node."""

    open_dependencies: int
    status: NodeStatus = _WAITING
    attempt: int = 0
    failures: int = 0
    started: int | None = None
    texts: list[str] = []
    finish_reason: str | None = None
    usage: dict[str, int] | None = None
    question: Question = NOTHING


class MissionState:
    """One mission in the hands of one runner.

    `outcomes` is what an earlier runner had recorded: final ones are kept, a running one means a
    node that was cut off. `base` has the outcomes of a mission to compare with: a node that asks
    the same as there keeps that result.
    """

    def __init__(
        self,
        graph: Graph,
        outcomes: Mapping[str, Outcome] | None = None,
        base: Mapping[str, Outcome] | None = None,
    ) -> None:
        self.status = MissionStatus.QUEUED
        self.outcomes: dict[str, Outcome] = {}
        self._graph = graph
        self._prompts = Prompts(base or {})
        self._interrupted: dict[str, None] = {}  # a set that keeps its order
        self._nodes = {
            node.id: _Progress(open_dependencies=len(node.dependencies))
            for node in graph.nodes.values()
        }
        for node_id, outcome in (outcomes or {}).items():
            self._recall(node_id, outcome)
        self._unfinished = sum(not self._ended(node_id) for node_id in self._nodes)

    @property
    def nodes(self) -> Collection[str]:
        """The ids of its nodes."""
        return self._nodes.keys()

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        """Decide what follows from one stimulus. After the end nothing follows from anything."""
        if self.status.final:
            return []
        match stimulus:
            case Arrived():
                return self._arrived(stimulus) if self._current(stimulus) else []
            case AttemptSucceeded():
                return self._succeeded(stimulus) if self._current(stimulus) else []
            case AttemptFailed():
                return self._failed(stimulus) if self._current(stimulus) else []
            case Begin():
                return self._begin(stimulus.now)
            case Cancel():
                return self._cancel(stimulus)
            case GiveUp():
                ends = self._close_all(NodeStatus.FAILED, stimulus.failure, stimulus.now)
                return [*ends, *self._finish_if_done()]

    # --- the beginning ---------------------------------------------------------------------------

    def _recall(self, node_id: str, outcome: Outcome) -> None:
        progress = self._nodes[node_id]
        progress.attempt = outcome.attempts
        progress.started = outcome.started
        if not outcome.final:
            self._interrupted[node_id] = None
            return
        progress.status = outcome.status
        self.outcomes[node_id] = outcome
        if outcome.has_result:
            self._prompts.results[node_id] = outcome.content
            for dependent in self._graph.dependents[node_id]:
                self._nodes[dependent].open_dependencies -= 1

    def _begin(self, now: int) -> list[Instruction]:
        self.status = MissionStatus.RUNNING
        instructions: list[Instruction] = []
        for node_id in list(self._interrupted):
            instructions += self._resume(node_id)
        for node_id, outcome in list(self.outcomes.items()):
            # Its runner may have died after the node's end was logged and before what follows was.
            instructions += self._follow(node_id, outcome, now)
        instructions += self._start(list(filter(self._ready, self._nodes)), now)
        return instructions + self._finish_if_done()

    def _resume(self, node_id: str) -> list[Instruction]:
        """Void what subscribers have of a node that was cut off: its text died with its runner."""
        if node_id not in self._interrupted:
            return []
        del self._interrupted[node_id]
        return [Log(NodeRestarted(node_id, self._running(node_id)))]

    def _ready(self, node_id: str) -> bool:
        progress = self._nodes[node_id]
        return progress.status is _WAITING and progress.open_dependencies == 0

    def _start(self, node_ids: Iterable[str], now: int) -> list[Instruction]:
        """Start nodes that are ready, and those that become ready by results that are kept."""
        instructions: list[Instruction] = []
        ready = deque(node_ids)
        while ready:
            node_id = ready.popleft()
            if not self._ready(node_id):
                continue  # closed, since one before it failed for good
            node, progress = self._graph.nodes[node_id], self._nodes[node_id]
            progress.status = _RUNNING
            progress.started = progress.started or now
            asked = self._prompts.ask(node)
            if isinstance(asked, Failure):
                instructions += self._refuse(node, asked, now)
                ready.extend(self._release(node_id))
                continue
            progress.question = asked
            if kept := self._prompts.kept(node_id, asked):
                instructions += self._keep(node_id, kept, now)
                ready.extend(self._release(node_id))
            else:
                progress.attempt += 1
                instructions.append(Log(NodeStarted(node_id, self._running(node_id))))
                attempt = StartAttempt(node, progress.attempt, asked.prompt, 0.0)
                instructions.append(attempt)
        return instructions

    def _refuse(self, node: Node, why: Failure, now: int) -> list[Instruction]:
        """End a node without an attempt, as its `onError` says."""
        if node.on_error.action != "default":
            closed = self._close(node.id, NodeStatus.FAILED, now, why)
            return [*closed, *self._after_failure(node.id, now)]
        return self._put_default(node, why, now)

    def _put_default(self, node: Node, why: Failure, now: int) -> list[Instruction]:
        text = node.on_error.text
        self._nodes[node.id].texts.append(text)
        token = Token(node.id, node.model, text, None, now // 1000)
        return [Log(token), *self._close(node.id, NodeStatus.DEFAULTED, now, why)]

    def _keep(self, node_id: str, kept: Outcome, now: int) -> list[Instruction]:
        progress = self._nodes[node_id]
        progress.texts.append(kept.content)
        progress.finish_reason = kept.finish_reason
        model = self._graph.nodes[node_id].model
        token = Token(node_id, model, kept.content, kept.finish_reason, now // 1000)
        return [Log(token), *self._close(node_id, NodeStatus.CACHED, now)]

    # --- attempts --------------------------------------------------------------------------------

    def _current(self, of: Arrived | AttemptSucceeded | AttemptFailed) -> bool:
        """Whether the attempt is the one that the node is at."""
        progress = self._nodes[of.node_id]
        return progress.status is _RUNNING and progress.attempt == of.attempt

    def _arrived(self, arrived: Arrived) -> list[Instruction]:
        progress = self._nodes[arrived.node_id]
        if arrived.usage is not None:
            progress.usage = arrived.usage
        if arrived.finish_reason is not None:
            progress.finish_reason = arrived.finish_reason
        if not arrived.text and arrived.finish_reason is None:
            return []
        progress.texts.append(arrived.text)
        model = self._graph.nodes[arrived.node_id].model
        reason, created = arrived.finish_reason, arrived.now // 1000
        return [Log(Token(arrived.node_id, model, arrived.text, reason, created))]

    def _succeeded(self, succeeded: AttemptSucceeded) -> list[Instruction]:
        return self._end(succeeded.node_id, NodeStatus.SUCCEEDED, succeeded.now)

    def _failed(self, failed: AttemptFailed) -> list[Instruction]:
        node, progress = self._graph.nodes[failed.node_id], self._nodes[failed.node_id]
        progress.failures += 1
        if failed.retryable and progress.failures <= node.retries:
            progress.attempt += 1
            started = Log(NodeStarted(failed.node_id, self._running(failed.node_id)))
            instructions = self._void(failed.node_id) or [started]
            delay = retry_delay(progress.failures, failed.retry_after, failed.jitter)
            return [
                *instructions,
                StartAttempt(node, progress.attempt, progress.question.prompt, delay),
            ]
        if node.on_error.action != "default":
            return self._end(failed.node_id, NodeStatus.FAILED, failed.now, failed.failure)
        instructions = self._void(failed.node_id)
        instructions += self._put_default(node, failed.failure, failed.now)
        instructions += self._start(self._release(node.id), failed.now)
        return instructions + self._finish_if_done()

    def _void(self, node_id: str) -> list[Instruction]:
        """Take back what subscribers have seen of the node, if they have seen anything."""
        progress = self._nodes[node_id]
        progress.finish_reason = progress.usage = None
        if not progress.texts:
            return []
        progress.texts.clear()
        return [Log(NodeRestarted(node_id, self._running(node_id)))]

    # --- ends ------------------------------------------------------------------------------------

    def _ended(self, node_id: str) -> bool:
        return self._nodes[node_id].status not in (_WAITING, _RUNNING)

    def _running(self, node_id: str) -> Outcome:
        progress = self._nodes[node_id]
        return Outcome(
            _RUNNING,
            attempts=progress.attempt,
            started=progress.started,
            fingerprint=progress.question.fingerprint,
        )

    def _end(
        self, node_id: str, status: NodeStatus, now: int, error: Failure | None = None
    ) -> list[Instruction]:
        """Give a node its outcome, and do all that follows from it."""
        instructions = self._close(node_id, status, now, error)
        instructions += self._follow(node_id, self.outcomes[node_id], now)
        return instructions + self._finish_if_done()

    def _close(
        self, node_id: str, status: NodeStatus, now: int, error: Failure | None = None
    ) -> list[Instruction]:
        resumed = self._resume(node_id)
        progress = self._nodes[node_id]
        was_running = progress.status is _RUNNING
        progress.status = status
        self._unfinished -= 1
        outcome = Outcome(
            status=status,
            content="".join(progress.texts),
            attempts=progress.attempt,
            started=progress.started,
            finished=now,
            finish_reason=progress.finish_reason,
            usage=progress.usage,
            error=error,
            fingerprint=progress.question.fingerprint,
        )
        self.outcomes[node_id] = outcome
        self._prompts.forget(progress.question)
        progress.question = NOTHING
        progress.texts.clear()
        log = Log(NodeEnded(node_id, outcome))
        stop = status is _CANCELLED and was_running
        return [*resumed, StopAttempt(node_id), log] if stop else [*resumed, log]

    def _follow(self, node_id: str, outcome: Outcome, now: int) -> list[Instruction]:
        """What a node's end does to the rest of the mission."""
        if outcome.has_result:
            return self._start(self._release(node_id), now)
        if outcome.status is NodeStatus.FAILED:
            return self._after_failure(node_id, now)
        return self._skip_dependents(node_id, now)

    def _after_failure(self, node_id: str, now: int) -> list[Instruction]:
        if self._graph.nodes[node_id].on_error.action == "fail":
            why = f'the mission ended because "{node_id}" failed'
            return self._close_all(_CANCELLED, Failure(MISSION_FAILED, why), now)
        return self._skip_dependents(node_id, now)

    def _release(self, node_id: str) -> list[str]:
        """Count a result for those that wait for it; who waits for nothing more is ready."""
        if node_id in self._prompts.results or not self.outcomes[node_id].has_result:
            return []  # recalled from an earlier runner, whose dependents are counted, or failed
        self._prompts.results[node_id] = self.outcomes[node_id].content
        ready, nodes = [], self._nodes
        for dependent in self._graph.dependents[node_id]:
            progress = nodes[dependent]
            progress.open_dependencies = still_open = progress.open_dependencies - 1
            if not still_open:
                ready.append(dependent)
        return ready

    def _skip_dependents(self, node_id: str, now: int) -> list[Instruction]:
        """Skip all that needs the node, near and far; a loop, since graphs can be deep."""
        instructions: list[Instruction] = []
        causes = [node_id]
        while causes:
            cause = causes.pop()
            for dependent in self._graph.dependents[cause]:
                if not self._ended(dependent):
                    why = Failure(DEPENDENCY_FAILED, f'the dependency "{cause}" has no result')
                    instructions += self._close(dependent, NodeStatus.SKIPPED, now, why)
                    causes.append(dependent)
        return instructions

    def _cancel(self, cancel: Cancel) -> list[Instruction]:
        if cancel.node_id is None:
            cancelled = _CANCELLED
            instructions = self._close_all(cancelled, CANCELLED_BY_CLIENT, cancel.now)
            return [*instructions, *self._finish(MissionStatus.CANCELLED)]
        if self._ended(cancel.node_id):
            return []
        return self._end(cancel.node_id, _CANCELLED, cancel.now, CANCELLED_BY_CLIENT)

    def _close_all(self, status: NodeStatus, why: Failure, now: int) -> list[Instruction]:
        instructions: list[Instruction] = []
        for node_id in self._nodes:
            if not self._ended(node_id):
                instructions += self._close(node_id, status, now, why)
        return instructions

    def _finish_if_done(self) -> list[Instruction]:
        if self._unfinished or self.status.final:
            return []
        succeeded = all(outcome.has_result for outcome in self.outcomes.values())
        return self._finish(MissionStatus.SUCCEEDED if succeeded else MissionStatus.FAILED)

    def _finish(self, status: MissionStatus) -> list[Instruction]:
        self.status = status
        return [Log(MissionFinished(status))]
