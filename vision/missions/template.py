"""Prompt templates: where the results of dependencies go.

The law: `{{id}}` is replaced by the result of dependency `id`, in one pass over the prompt as it
was sent. Results are never looked at again, so nothing that a model writes can be expanded. Results
of dependencies that the prompt does not name come before it, in the order of `dependenceIdList`,
each followed by a blank line. `\\{{id}}` stands for the literal text `{{id}}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

# Braces and line breaks cannot stand in a placeholder, so that code and JSON in a prompt, which is
# full of braces, is seldom taken for one. Blanks are stripped afterwards: a pattern that leaves
# them out by itself takes cubic time over a long run of them.
_PLACEHOLDER = re.compile(r"(?P<escape>\\)?\{\{(?P<id>[^{}\r\n]+)\}\}")

BLANK_LINE = "\n\n"


class Filled(msgspec.Struct, frozen=True):
    """A template with its results, not put together yet: it may be too long for that."""

    before: Sequence[str]  # results that the prompt does not name
    parts: Sequence[str]  # of the prompt itself

    @property
    def length(self) -> int:
        """Characters of the prompt, blank lines and all."""
        blank_lines = len(BLANK_LINE) * len(self.before)
        return sum(map(len, self.before)) + blank_lines + sum(map(len, self.parts))

    @property
    def prompt(self) -> str:
        """What is sent to the model."""
        return BLANK_LINE.join([*self.before, "".join(self.parts)])


class Template(msgspec.Struct, frozen=True):
    """A prompt, taken apart: literal texts, and between each two of them one placeholder.

    `texts` is always one longer than `names`.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]

    def fill(self, results: Mapping[str, str], dependencies: Sequence[str]) -> Filled:
        """Put the results in. `results` has the text of every dependency."""
        if not self.names:
            return Filled([results[name] for name in dependencies], self.texts)
        named = frozenset(self.names)
        before = [results[name] for name in dependencies if name not in named]
        return Filled(before, list(self._parts(results)))

    def _parts(self, results: Mapping[str, str]) -> Iterator[str]:
        yield self.texts[0]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            yield results[name]
            yield text


def parse_template(prompt: str) -> Template:
    """Find the placeholders of a prompt; any text is a valid prompt."""
    if "{{" not in prompt:  # as most have none
        return Template((prompt,), ())
    texts: list[list[str]] = [[]]
    names: list[str] = []
    end = 0
    for match in _PLACEHOLDER.finditer(prompt):
        texts[-1].append(prompt[end : match.start()])
        name = match["id"].strip(" \t")
        if match["escape"]:
            texts[-1].append(match[0][1:])
        elif name:
            names.append(name)
            texts.append([])
        else:
            texts[-1].append(match[0])
        end = match.end()
    texts[-1].append(prompt[end:])
    return Template(tuple(map("".join, texts)), tuple(names))
