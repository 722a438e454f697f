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


class Template(msgspec.Struct, frozen=True):
    """A prompt, taken apart: literal texts, and between each two of them one placeholder.

    `texts` is always one longer than `names`.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]

    def render(self, results: Mapping[str, str], dependencies: Sequence[str]) -> str:
        """The prompt to send. `results` has the text of every dependency."""
        if not self.names:
            return BLANK_LINE.join([*[results[name] for name in dependencies], self.texts[0]])
        named = frozenset(self.names)
        before = [results[name] for name in dependencies if name not in named]
        return BLANK_LINE.join([*before, "".join(self._parts(results))])

    def length(self, results: Mapping[str, str], dependencies: Sequence[str]) -> int:
        """How long the prompt will be, at most a few blank lines less, without making it."""
        if not self.names:
            return sum([len(results[name]) for name in dependencies]) + len(self.texts[0])
        named = frozenset(self.names)
        before = sum(len(results[name]) for name in dependencies if name not in named)
        return before + sum(map(len, self.texts)) + sum(len(results[name]) for name in self.names)

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
