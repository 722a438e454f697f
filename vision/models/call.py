"""What is asked of a model and what comes back.

The law: pure. A call is complete before it leaves: its body is the upstream request as it will be
sent, but for `stream`, `n` and `best_of`, which `vision/models/upstream.py` decides. A parameter is
sent as the client gave it or refused with its path; none is silently dropped. Types and ranges are
the JSON schemas' business; here are the rules that need the route or several fields at once.

Source: vision-server-doc.md, `IParams` of both kinds; what OpenAI documents for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from vision.errors import InvalidRequest

Kind = Literal["chat", "completion"]

# OpenAI's own bounds. Every candidate is generated and paid, so there must be some.
MAX_N = 128
MAX_BEST_OF = 20

_BOTH_KINDS = frozenset(
    {"max_tokens", "temperature", "top_p", "n", "presence_penalty", "frequency_penalty"}
    | {"best_of", "stop", "seed", "logit_bias", "user"}
)
_ALLOWED: Mapping[Kind, frozenset[str]] = {
    "chat": _BOTH_KINDS | {"response_format"},
    "completion": _BOTH_KINDS | {"suffix"},
}
_REFUSED: Mapping[tuple[Kind, str], str] = {
    ("chat", "suffix"): "a chat model cannot write text that goes before a suffix;"
    " use a completion model or leave it out",
    ("chat", "prompt"): "a chat model takes `messages`, not `prompt`",
    ("completion", "messages"): "a completion model takes `prompt`, not `messages`",
    ("completion", "response_format"): "a completion model has no response formats",
}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one call may take, in seconds. Waiting for a slot counts in none of them."""

    # Reaching a healthy host takes well under a second; this leaves room for a lost packet or two.
    connect: float = 10.0
    # From the request to the first content: a long prompt on a busy upstream, or one that thinks.
    first_token: float = 120.0
    # Between two reads once content flows: slow models give several tokens a second.
    idle: float = 60.0
    # The whole call. The longest answers (tens of thousands of tokens) take some minutes.
    total: float = 600.0


class Usage(msgspec.Struct, frozen=True):
    """Tokens, as the upstream counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
        )


class Chunk(msgspec.Struct, frozen=True):
    """One thing that a stream brought: text (maybe ""), an end, or usage. The last usage counts."""

    text: str
    finish_reason: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: `n` texts for each prompt, in the order of the prompts.

    `usage` is the sum over all calls that were needed, None when an upstream did not say.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str | None, ...]
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Route:
    """Where a public model name leads: the upstream and the model's name there.

    `unsupported` holds documented parameters that this model cannot honour.
    """

    model: str
    upstream: str
    name: str
    kind: Kind
    unsupported: frozenset[str] = frozenset()


class ModelCall(msgspec.Struct, frozen=True):
    """One question to one model; `body` is the upstream request without stream, n and best_of.

    Of `best_of` candidates for each prompt, the `n` most probable are the result.
    """

    route: Route
    body: Mapping[str, object]
    n: int = 1
    best_of: int = 1


def node_call(route: Route, prompt: str, params: Mapping[str, object]) -> ModelCall:
    """The call of a mission's node; `params` have passed `check_node_params`."""
    if route.kind == "chat":
        return _call(route, {"messages": [{"role": "user", "content": prompt}]}, params)
    return _call(route, {"prompt": prompt}, params)


def single_call(route: Route, params: Mapping[str, object]) -> ModelCall:
    """The call of a single-prompt request; `params` have passed `check_single_params`."""
    return _call(route, {}, params)


def check_node_params(route: Route, params: Mapping[str, object], *, path: str) -> None:
    """Raises InvalidRequest, with a path under `path`, for params that a node cannot have."""
    for name in ("prompt", "messages"):
        if name in params:
            raise InvalidRequest(
                "a node's prompt stands beside its params, not in them", path=_at(path, name)
            )
    _check_names(route, params, path)
    _check_together(params, path)
    if _count(params, "n", path) not in (None, 1):
        raise InvalidRequest("a node has one result: n must be 1", path=_at(path, "n"))


def check_single_params(route: Route, params: Mapping[str, object], *, path: str) -> None:
    """Raises InvalidRequest, with a path under `path`, for params that the model cannot have."""
    source = "messages" if route.kind == "chat" else "prompt"
    _check_names(route, {name: None for name in params if name != source}, path)
    if source not in params:
        raise InvalidRequest(f"{_a(route)} needs `{source}`", path=_at(path, source))
    if params[source] in ([], ()):
        raise InvalidRequest("must not be empty", path=_at(path, source))
    _check_together(params, path)
    if route.kind == "completion" and _count(params, "n", path) not in (None, 1):
        raise InvalidRequest("n is fixed at 1 for a completion model", path=_at(path, "n"))


def _call(route: Route, source: dict[str, object], params: Mapping[str, object]) -> ModelCall:
    n = _count(params, "n", "") or 1
    best_of = _count(params, "best_of", "") or n
    sent = {name: value for name, value in params.items() if name not in ("n", "best_of")}
    return ModelCall(route, {"model": route.name, **source, **sent}, n, best_of)


def _check_names(route: Route, params: Mapping[str, object], path: str) -> None:
    for name in params:
        if name not in _ALLOWED[route.kind]:
            reason = _REFUSED.get((route.kind, name), f"{_a(route)} has no such parameter")
            raise InvalidRequest(reason, path=_at(path, name))
        if name in route.unsupported:
            raise InvalidRequest(f"{route.model} does not support it", path=_at(path, name))


def _check_together(params: Mapping[str, object], path: str) -> None:
    if "temperature" in params and "top_p" in params:
        raise InvalidRequest(
            "temperature and top_p cannot be used together; leave one out", path=_at(path, "top_p")
        )
    n = _count(params, "n", path)
    if n is not None and n > MAX_N:
        raise InvalidRequest(f"must be at most {MAX_N}", path=_at(path, "n"))
    best_of = _count(params, "best_of", path)
    if best_of is None:
        return
    if best_of > MAX_BEST_OF:
        raise InvalidRequest(f"must be at most {MAX_BEST_OF}", path=_at(path, "best_of"))
    if best_of < (n or 1):
        raise InvalidRequest(f"must not be less than n ({n or 1})", path=_at(path, "best_of"))


def _count(params: Mapping[str, object], name: str, path: str) -> int | None:
    value = params.get(name)
    if value is None and name not in params:
        return None
    # JSON does not tell 2 from 2.0, and JSON Schema calls both an integer.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidRequest("must be a positive integer", path=_at(path, name))
    return value


def _a(route: Route) -> str:
    return f"a {route.kind} model ({route.model})"


def _at(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
