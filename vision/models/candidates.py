"""Several answers to one prompt: how many to ask for, and which to keep.

The law: pure. `best_of` works the same for every upstream, because servers do not agree on it
(OpenAI honours it on one endpoint only, llama.cpp ignores it): we ask for that many candidates with
log probabilities and keep the `n` with the highest mean over their tokens, best first. A choice is
never made at random: without log probabilities the call is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vision.errors import ModelError
from vision.models.call import Completion, ModelCall, Usage
from vision.models.replies import Candidate, Reply


def prompt_bodies(call: ModelCall) -> list[dict[str, object]]:
    """One request body for each prompt, since not every server takes a list of them."""
    body = dict(call.body)
    if ranked(call):
        # A chat gives those of the chosen tokens; for completions 1 is the least that all accept.
        body["logprobs"] = True if call.route.kind == "chat" else 1
    prompt = body.get("prompt")
    if not isinstance(prompt, list | tuple):
        return [body]
    return [{**body, "prompt": each} for each in prompt]


def ranked(call: ModelCall) -> bool:
    """Whether candidates have to be compared at all."""
    return call.best_of > call.n


def one_body(body: Mapping[str, object], number: int) -> dict[str, object]:
    """The request for candidate `number` alone. A seed is moved on: else all would be the same."""
    seed = body.get("seed")
    if isinstance(seed, int) and number > 0:
        return {**body, "seed": seed + number}
    return dict(body)


def choose(call: ModelCall, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The `call.n` results among the candidates of one prompt."""
    found = list(candidates)
    if not ranked(call):
        return found[: call.n]
    return sorted(found, key=_likelihood, reverse=True)[: call.n]


def assemble(call: ModelCall, replies: Iterable[list[Reply]]) -> Completion:
    """The completion from the replies for each prompt, in the order of the prompts."""
    chosen: list[Candidate] = []
    usage: Usage | None = None
    for for_prompt in replies:
        chosen += choose(call, (each for reply in for_prompt for each in reply.candidates))
        for reply in for_prompt:
            if reply.usage is not None:
                usage = reply.usage if usage is None else usage + reply.usage
    return Completion(
        tuple(candidate.text for candidate in chosen),
        tuple(candidate.finish_reason for candidate in chosen),
        usage,
    )


def _likelihood(candidate: Candidate) -> float:
    if candidate.logprob is not None:
        return candidate.logprob
    if not candidate.text:  # no tokens, so nothing to average: an empty answer comes last
        return float("-inf")
    raise ModelError(
        "the upstream gives no log probabilities, so the best of several cannot be chosen;"
        " leave out best_of",
        code="upstream_rejected",
        retryable=False,
    )
