"""What an OpenAI-compatible upstream answers, reduced to what matters.

The law: pure; bytes in, chunks or candidates out. Servers differ, so everything that is not needed
is ignored, and everything that may be missing may be null or missing: choices, delta, content,
usage. What cannot be understood is `upstream_garbled`; an error object inside a good response is
that error, with the upstream's own words.

Source: OpenAI API reference, "Chat completion chunk object" and "Completion object"; llama.cpp's
server gives the log probabilities of completions in the form of chats.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from vision.errors import ModelError
from vision.models.call import Chunk, Usage
from vision.models.failures import cut_off, garbled, status_error
from vision.models.sse import SseEvent

_DONE = b"[DONE]"


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    # What a thinking model thinks; the first is llama.cpp's and DeepSeek's name, the second vLLM's.
    reasoning_content: str | None = None
    reasoning: str | None = None


class _TokenLogprob(msgspec.Struct, gc=False):
    logprob: float


class _Logprobs(msgspec.Struct, gc=False):
    content: list[_TokenLogprob] | None = None
    token_logprobs: list[float | None] | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    text: str | None = None
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


_NO_ERROR = msgspec.Raw(b"null")


class _Reply(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw = _NO_ERROR


_decode = msgspec.json.Decoder(_Reply).decode


@dataclass(slots=True)
class StreamProgress:
    """What a stream has brought so far; decides whether its end is an end."""

    seen: bool = False  # any event at all
    begun: bool = False  # content, or a thinking model's thoughts
    finished: bool = False  # a choice gave its finish reason
    done: bool = False  # [DONE] came
    failure: ModelError | None = None  # what the stream reported, or that it is not the protocol

    @property
    def over(self) -> bool:
        """Whether nothing more is to be read."""
        return self.done or self.failure is not None

    def take(self, events: list[SseEvent]) -> list[Chunk]:
        """The chunks of the events; those with nothing to tell are left out.

        What came before a failure is given too; the failure is kept for `check_end`.
        """
        chunks: list[Chunk] = []
        for event in events:
            self.seen = True
            if event.data.startswith(_DONE):
                self.done = True
                break
            try:
                self._event(event, chunks)
            except ModelError as error:
                self.failure = error
                break
        return chunks

    def take_rest(self, events: list[SseEvent]) -> list[Chunk]:
        """Like `take`, for what is left at the end of the response: there a fragment of an event
        means that the rest is missing, not that it is garbled."""
        chunks = self.take(events)
        if self.failure is not None and self.failure.code == "upstream_garbled":
            self.failure = None
        return chunks

    def check_end(self, name: str) -> None:
        """Raises ModelError unless the stream of the upstream `name` may end here.

        Some servers leave out [DONE], some the finish reason: one of them is enough.
        """
        if self.failure is not None:
            raise self.failure
        if not self.seen:
            raise garbled(f"{name} sent no events")
        if not (self.done or self.finished):
            raise cut_off(name)

    def _event(self, event: SseEvent, chunks: list[Chunk]) -> None:
        if event.name == "error":
            raise status_error(None, event.data)
        reply = _parse(event.data)
        usage = _usage(reply.usage)
        for choice in reply.choices or ():
            part = choice.delta or choice.message
            text = choice.text or _text(part)
            if text or (part is not None and (part.reasoning_content or part.reasoning)):
                self.begun = True
            if choice.finish_reason is not None:
                self.finished = True
            elif not text:
                continue
            chunks.append(Chunk(text, choice.finish_reason, usage))
            usage = None
        if usage is not None:
            chunks.append(Chunk("", None, usage))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice of a whole reply; `logprob` is the mean over its tokens, None when not given."""

    text: str
    finish_reason: str | None
    logprob: float | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole, non-streamed reply."""

    candidates: tuple[Candidate, ...]
    usage: Usage | None


def read_reply(body: bytes) -> Reply:
    """The reply in a response body; ModelError when it has no choices or is not the protocol."""
    reply = _parse(body)
    if not reply.choices:
        raise garbled("the upstream's answer has no choices")
    ordered = sorted(reply.choices, key=lambda choice: choice.index or 0)
    return Reply(tuple(map(_candidate, ordered)), _usage(reply.usage))


def _parse(data: bytes) -> _Reply:
    try:
        reply = _decode(data)
    except msgspec.ValidationError as error:
        raise garbled(f"the upstream's answer is not an OpenAI one: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise garbled(f"the upstream's answer is not JSON: {error}") from error
    if reply.error is not _NO_ERROR and (reported := bytes(reply.error)) != b"null":
        raise status_error(None, reported)
    return reply


def _candidate(choice: _Choice) -> Candidate:
    text = choice.text or _text(choice.message or choice.delta)
    return Candidate(text, choice.finish_reason, _mean_logprob(choice.logprobs))


def _text(message: _Message | None) -> str:
    return "" if message is None else message.content or message.refusal or ""


def _mean_logprob(logprobs: _Logprobs | None) -> float | None:
    if logprobs is None:
        return None
    if logprobs.content is not None:
        values = [token.logprob for token in logprobs.content]
    else:
        # OpenAI gives null for a token that has no probability (the first of an echoed prompt).
        values = [value for value in logprobs.token_logprobs or () if value is not None]
    return sum(values) / len(values) if values else None


def _usage(usage: _Usage | None) -> Usage | None:
    if usage is None:
        return None
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return Usage(prompt, completion, usage.total_tokens or prompt + completion)
