"""What the nodes of a mission ask: their prompts with the results in them, bounded, and compared.

The law: pure. A prompt is made when its node starts and forgotten when the node ends. A result may
be named any number of times, so a small request could ask for a prompt that no memory holds: the
length is known, and refused, before it is made. A node that asks the same as it did in the base
mission keeps the result that it had there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from vision.missions.events import Failure, NodeStatus, Outcome
from vision.missions.graph import Node, fingerprint

# Some million tokens: beyond what models read.
MAX_PROMPT_CHARS: Final = 4 * 1024 * 1024

# The same for the prompts of a mission's running nodes together: 2,000 of 32,000 characters.
MAX_PROMPTS_CHARS: Final = 64 * 1024 * 1024

PROMPT_TOO_LONG: Final = "prompt_too_long"


class Question(msgspec.Struct, frozen=True):
    """A node's prompt, and the fingerprint of all that it asks."""

    prompt: str = ""
    fingerprint: str = ""


NOTHING: Final = Question()  # of a node that does not run


class Prompts:
    """The results so far, and the prompts of the nodes that run."""

    def __init__(self, base: Mapping[str, Outcome]) -> None:
        self.results: dict[str, str] = {}
        self._base = base
        self._chars = 0

    def ask(self, node: Node) -> Question | Failure:
        """What the node asks, all of whose dependencies have results; or why it cannot be asked."""
        filled = node.template.fill(self.results, node.dependencies)
        length = filled.length
        if length > MAX_PROMPT_CHARS or self._chars + length > MAX_PROMPTS_CHARS:
            why = (
                f"with the results of its dependencies the prompt has {length} characters; a node "
                f"may have {MAX_PROMPT_CHARS}, and all that run at once {MAX_PROMPTS_CHARS}"
            )
            return Failure(PROMPT_TOO_LONG, why)
        prompt = filled.prompt
        self._chars += length
        return Question(prompt, fingerprint(node, prompt))

    def forget(self, question: Question) -> None:
        """The node has ended."""
        self._chars -= len(question.prompt)

    def kept(self, node_id: str, question: Question) -> Outcome | None:
        """The result of the base mission, if the node asks the same as it did there."""
        there = self._base.get(node_id)
        if there is None or there.status not in (NodeStatus.SUCCEEDED, NodeStatus.CACHED):
            return None
        return there if there.fingerprint == question.fingerprint else None
