"""What goes into the mission state machine, and what comes out of it.

The law: a stimulus tells a fact and an instruction orders a deed; neither does anything. Both are
frozen, so that a test can write down a whole mission as two lists.
"""

from __future__ import annotations

from dataclasses import dataclass

from vision.missions.events import (
    Failure,
    MissionFinished,
    NodeEnded,
    NodeRestarted,
    NodeStarted,
    Token,
)
from vision.missions.graph import Node

# Stimuli: what the shell tells. `now` is milliseconds since the epoch, in UTC.


@dataclass(frozen=True, slots=True)
class Begin:
    """A runner owns the mission: start whatever can start."""

    now: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """An attempt brought text, its end reason or its usage."""

    node_id: str
    attempt: int
    text: str
    finish_reason: str | None
    usage: dict[str, int] | None
    now: int


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """An attempt's stream came to its end."""

    node_id: str
    attempt: int
    now: int


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt came to nothing. `jitter` in [0, 1) spreads the retries of many nodes."""

    node_id: str
    attempt: int
    failure: Failure
    retryable: bool
    retry_after: float | None
    jitter: float
    now: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """A client ends the mission, or one node of it."""

    node_id: str | None
    now: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The mission cannot be run: end what has not ended."""

    failure: Failure
    now: int


Stimulus = Begin | Arrived | AttemptSucceeded | AttemptFailed | Cancel | GiveUp

# Instructions: what the shell is to do.


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Call the node's model with `prompt` after `delay` seconds."""

    node: Node
    attempt: int
    prompt: str
    delay: float


@dataclass(frozen=True, slots=True)
class StopAttempt:
    """Close the node's running call, if there is one."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Log:
    """Append the event to the mission's log and publish it."""

    event: Token | NodeStarted | NodeRestarted | NodeEnded | MissionFinished


Instruction = StartAttempt | StopAttempt | Log
