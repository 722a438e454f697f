"""What goes into the mission state machine, and what comes out of it.

The law: a stimulus tells a fact and an instruction orders a deed; neither does anything. Both are
frozen, so that a test can write down a whole mission as two lists. They are structs and not
dataclasses, whose frozen kind takes three times as long to make: several are made for each token.
"""

from __future__ import annotations

import msgspec

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


class Begin(msgspec.Struct, frozen=True):
    """A runner owns the mission: start whatever can start."""

    now: int


class Arrived(msgspec.Struct, frozen=True):
    """An attempt brought text, its end reason or its usage."""

    node_id: str
    attempt: int
    text: str
    finish_reason: str | None
    usage: dict[str, int] | None
    now: int


class AttemptSucceeded(msgspec.Struct, frozen=True):
    """An attempt's stream came to its end."""

    node_id: str
    attempt: int
    now: int


class AttemptFailed(msgspec.Struct, frozen=True):
    """An attempt came to nothing. `jitter` in [0, 1) spreads the retries of many nodes."""

    node_id: str
    attempt: int
    failure: Failure
    retryable: bool
    retry_after: float | None
    jitter: float
    now: int


class Cancel(msgspec.Struct, frozen=True):
    """A client ends the mission, or one node of it."""

    node_id: str | None
    now: int


class GiveUp(msgspec.Struct, frozen=True):
    """The mission cannot be run: end what has not ended."""

    failure: Failure
    now: int


Stimulus = Begin | Arrived | AttemptSucceeded | AttemptFailed | Cancel | GiveUp

# Instructions: what the shell is to do.


class StartAttempt(msgspec.Struct, frozen=True):
    """Call the node's model with `prompt` after `delay` seconds."""

    node: Node
    attempt: int
    prompt: str
    delay: float


class StopAttempt(msgspec.Struct, frozen=True):
    """Close the node's running call, if there is one."""

    node_id: str


class Log(msgspec.Struct, frozen=True):
    """Append the event to the mission's log and publish it."""

    event: Token | NodeStarted | NodeRestarted | NodeEnded | MissionFinished


Instruction = StartAttempt | StopAttempt | Log
