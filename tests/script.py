"""What the scripted upstream answers: scripts, and the form that the protocol gives them.

The law: pure, and the same prompt always gets the same answer. A script comes from the test or
from a directive in the prompt: `[[tokens=20 delay=0.05]]` sets the fields of `Reply` by name;
`retry_after=2` is a header, `fail=2` is the upstream's business.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

NEVER = math.inf
_DIRECTIVE = re.compile(r"\s*\[\[(.*?)\]\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to answer; times in seconds, NEVER for one that does not pass."""

    tokens: Sequence[str] | int | None = None  # None: echo; a number: so many made-up words
    texts: Sequence[str] | None = None  # non-streamed: one for each candidate
    logprobs: Sequence[float] | None = (
        -1.0,
        -2.0,
        -3.0,
    )  # means for each candidate, None: not given
    most_choices: int | None = None  # gives no more than this many, whatever `n` asks
    most_n: int | None = None  # answers 400 to a larger `n`, as llama.cpp does
    usage: bool = True
    finish_reason: str | None = "stop"
    done: bool = True  # whether [DONE] is sent

    before_headers: float = 0
    before_first: float = 0
    delay: float = 0  # between tokens
    tokens_per_write: int = 1

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of an answer, with any status
    error: Mapping[str, object] | None = None  # an error object: the body, or (200) in the stream

    stop_after: int | None = None  # tokens; then one of the three that follow, or a plain end
    hang: bool = False  # the connection stays open, nothing comes
    cut: bool = False  # the socket is closed

    writes: Sequence[bytes] | None = None  # the body of a stream, in exactly these writes
    newline: str = "\n"
    comments: bool = False  # a comment before each event
    split: int | None = None  # cuts what is written into pieces of so many bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; `at` is Unix time."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    prompt: str
    at: float


class Answer:
    """The protocol's form of a reply; `refused` says why there is none, if so."""

    def __init__(self, reply: Reply, request: Request) -> None:
        self._reply = reply
        self._chat = request.path.startswith("chat")
        self._body = request.body
        self._tokens = _tokens(reply, request.prompt)
        self._prompt_tokens = len(request.prompt.split())
        n = int(request.body.get("n", 1))
        self._choices = min(n, reply.most_choices or n)
        too_many = reply.most_n is not None and n > reply.most_n
        self.refused = f"Field 'n': must be at most {reply.most_n}" if too_many else None

    def whole(self) -> dict[str, Any]:
        return self._object([self._choice(index) for index in range(self._choices)], usage=True)

    def writes(self) -> Iterator[bytes]:
        """Made one by one: a long answer made at once would hold the loop that it shares."""
        events = self._events()
        while write := b"".join(islice(events, self._reply.tokens_per_write)):
            yield write

    def _events(self) -> Iterator[bytes]:
        reply = self._reply
        if self._chat:
            yield self._event({"delta": {"role": "assistant", "content": None}})
        for token in self._tokens[: reply.stop_after]:
            yield self._event(self._delta(token))
        if reply.error is not None:
            yield self._line(json.dumps({"error": reply.error}))
        elif reply.stop_after is None:
            yield from self._end()

    def _end(self) -> list[bytes]:
        reply, events = self._reply, []
        if reply.finish_reason is not None:
            events.append(self._event({**self._delta(""), "finish_reason": reply.finish_reason}))
        options = self._body.get("stream_options") or {}
        if reply.usage and options.get("include_usage"):
            events.append(self._line(json.dumps(self._object([], usage=True))))
        if reply.done:
            events.append(self._line("[DONE]"))
        return events

    def _event(self, choice: dict[str, Any]) -> bytes:
        whole = {"index": 0, "finish_reason": None, "logprobs": None, **choice}
        return self._line(json.dumps(self._object([whole], usage=False), ensure_ascii=False))

    def _line(self, data: str) -> bytes:
        newline = self._reply.newline
        comment = f": keep-alive{newline}{newline}" if self._reply.comments else ""
        return f"{comment}data: {data}{newline}{newline}".encode()

    def _delta(self, token: str) -> dict[str, Any]:
        return {"delta": {"content": token}} if self._chat else {"text": token}

    def _choice(self, index: int) -> dict[str, Any]:
        reply = self._reply
        text = "".join(self._tokens) if reply.texts is None else reply.texts[index]
        form = {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        logprobs = None
        if self._body.get("logprobs") and reply.logprobs is not None:
            logprobs = self._logprobs(reply.logprobs[index % len(reply.logprobs)])
        return {"index": index, "finish_reason": reply.finish_reason, "logprobs": logprobs, **form}

    def _logprobs(self, mean: float) -> dict[str, Any]:
        around = [mean - 0.5, mean + 0.5]
        if self._chat:
            return {"content": [{"token": "x", "logprob": each} for each in around]}
        return {"tokens": ["x", "x"], "token_logprobs": around}

    def _object(self, choices: list[dict[str, Any]], *, usage: bool) -> dict[str, Any]:
        made = {"id": "scripted", "created": 1, "model": self._body.get("model")}
        made |= {"object": "chat.completion" if self._chat else "text_completion"}
        made |= {"choices": choices}
        if usage and self._reply.usage:
            given = len(self._tokens) * max(1, len(choices))
            made["usage"] = {
                "prompt_tokens": self._prompt_tokens,
                "completion_tokens": given,
                "total_tokens": self._prompt_tokens + given,
            }
        return made


def echo(prompt: str) -> list[str]:
    """The tokens of the default answer to a prompt; joined they are its text."""
    return ["echo: ", *re.findall(r"\S+\s*|\s+", _DIRECTIVE.sub("", prompt))]


def _tokens(reply: Reply, prompt: str) -> list[str]:
    if reply.tokens is None:
        return echo(prompt)
    if isinstance(reply.tokens, int):
        return [f"word{number} " for number in range(reply.tokens)]
    return list(reply.tokens)


def prompt_of(body: Mapping[str, Any]) -> str:
    if "messages" in body:
        return next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), "")
    prompt = body["prompt"]
    return prompt if isinstance(prompt, str) else "\n".join(prompt)


def directive(prompt: str) -> dict[str, Any]:
    """The fields that a prompt's directive sets, with `fail` among them; empty without one."""
    found = _DIRECTIVE.search(prompt)
    if found is None:
        return {}
    fields = {name: _value(text) for name, text in _pairs(found.group(1))}
    if "retry_after" in fields:
        fields["headers"] = {"Retry-After": str(fields.pop("retry_after"))}
    return fields


def _pairs(text: str) -> list[tuple[str, str]]:
    known = {each.name for each in dataclasses.fields(Reply)} | {"fail", "retry_after"}
    pairs = [(name, value) for name, _, value in (p.partition("=") for p in text.split())]
    unknown = [name for name, _ in pairs if name not in known]
    if unknown:
        raise ValueError(f"the scripted upstream knows no directive {unknown}")
    return pairs


def _value(text: str) -> Any:
    if text == "never":
        return NEVER
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
