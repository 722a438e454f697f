"""A parameter is sent or refused with its path; the body is the upstream's request."""

from __future__ import annotations

import pytest

from vision.errors import InvalidRequest
from vision.models.call import (
    Route,
    check_node_params,
    check_single_params,
    node_call,
    single_call,
)

CHAT = Route("chatty", "there", "chat-model", "chat")
TEXT = Route("writer", "there", "text-model", "completion")
MESSAGES = [{"role": "user", "content": "hi"}]
PASSED_ON = {
    "max_tokens": 5,
    "presence_penalty": 1,
    "frequency_penalty": -1,
    "stop": ["x"],
    "seed": 1,
    "logit_bias": {"5": 1},
    "user": "u",
}


def test_a_chat_node_is_one_message_of_the_user():
    call = node_call(CHAT, "hi", {**PASSED_ON, "temperature": 0.5, "n": 1})
    expected = {"model": "chat-model", "messages": MESSAGES, **PASSED_ON, "temperature": 0.5}
    assert call.body == expected
    assert (call.route, call.n, call.best_of) == (CHAT, 1, 1)


def test_a_completion_node_is_its_prompt():
    call = node_call(TEXT, "hi", {"suffix": "end", "top_p": 0.1})
    assert call.body == {"model": "text-model", "prompt": "hi", "suffix": "end", "top_p": 0.1}


def test_a_single_call_keeps_what_the_client_sent():
    call = single_call(CHAT, {"messages": MESSAGES, "n": 2, "best_of": 5.0})
    assert call.body == {"model": "chat-model", "messages": MESSAGES}
    assert (call.n, call.best_of) == (2, 5)


def test_best_of_defaults_to_n():
    assert single_call(CHAT, {"messages": MESSAGES, "n": 3}).best_of == 3


@pytest.mark.parametrize(
    ("route", "params"),
    [
        (CHAT, {**PASSED_ON, "temperature": 2, "response_format": {"type": "json_object"}}),
        (CHAT, {"n": 1, "best_of": 1}),
        (CHAT, {"best_of": 20}),
        (TEXT, {**PASSED_ON, "top_p": 1, "suffix": "x"}),
        (TEXT, {"n": 1.0, "best_of": 2}),
        (TEXT, {}),
    ],
)
def test_what_a_model_can_do_is_accepted_in_a_node(route, params):
    check_node_params(route, params, path="params")


@pytest.mark.parametrize(
    ("route", "params", "message"),
    [
        (CHAT, {"temperature": 1, "top_p": 1},
         "p.top_p: temperature and top_p cannot be used together; leave one out"),
        (CHAT, {"suffix": "x"},
         "p.suffix: a chat model cannot write text that goes before a suffix;"
         " use a completion model or leave it out"),
        (TEXT, {"response_format": {}}, "p.response_format: a completion model has no response"
         " formats"),
        (CHAT, {"prompt": "x"}, "p.prompt: a node's prompt stands beside its params, not in them"),
        (TEXT, {"messages": []}, "p.messages: a node's prompt stands beside its params, not in"
         " them"),
        (CHAT, {"n": 2}, "p.n: a node has one result: n must be 1"),
        (CHAT, {"n": 0}, "p.n: must be a positive integer"),
        (CHAT, {"n": None}, "p.n: must be a positive integer"),
        (CHAT, {"best_of": True}, "p.best_of: must be a positive integer"),
        (CHAT, {"best_of": 2.5}, "p.best_of: must be a positive integer"),
        (CHAT, {"best_of": 21}, "p.best_of: must be at most 20"),
        (CHAT, {"stream": True}, "p.stream: a chat model (chatty) has no such parameter"),
        (Route("m", "u", "m", "chat", frozenset({"seed"})), {"seed": 1},
         "p.seed: m does not support it"),
    ],
)  # fmt: skip
def test_what_a_node_cannot_have_is_refused_with_its_path(route, params, message):
    with pytest.raises(InvalidRequest) as caught:
        check_node_params(route, params, path="p")
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("route", "params"),
    [
        (CHAT, {"messages": MESSAGES, "n": 128}),
        (CHAT, {"messages": MESSAGES, "n": 2, "best_of": 2}),
        (TEXT, {"prompt": "x", "n": 1, "best_of": 3}),
        (TEXT, {"prompt": ["x", "y"]}),
        (TEXT, {"prompt": ""}),
    ],
)
def test_what_a_model_can_do_is_accepted_alone(route, params):
    check_single_params(route, params, path="params")


@pytest.mark.parametrize(
    ("route", "params", "message"),
    [
        (CHAT, {}, "p.messages: a chat model (chatty) needs `messages`"),
        (TEXT, {}, "p.prompt: a completion model (writer) needs `prompt`"),
        (CHAT, {"prompt": "x"}, "p.prompt: a chat model takes `messages`, not `prompt`"),
        (TEXT, {"messages": MESSAGES}, "p.messages: a completion model takes `prompt`, not"
         " `messages`"),
        (TEXT, {"prompt": []}, "p.prompt: must not be empty"),
        (CHAT, {"messages": []}, "p.messages: must not be empty"),
        (TEXT, {"prompt": "x", "n": 2}, "p.n: n is fixed at 1 for a completion model"),
        (CHAT, {"messages": MESSAGES, "n": 129}, "p.n: must be at most 128"),
        (CHAT, {"messages": MESSAGES, "n": 3, "best_of": 2},
         "p.best_of: must not be less than n (3)"),
    ],
)  # fmt: skip
def test_what_a_single_request_cannot_have_is_refused_with_its_path(route, params, message):
    with pytest.raises(InvalidRequest) as caught:
        check_single_params(route, params, path="p")
    assert caught.value.message == message
