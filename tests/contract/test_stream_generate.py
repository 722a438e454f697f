"""stream 任务生成: POST /api/completion/st/generate."""

from __future__ import annotations

import json

import pytest

from tests.contract.conftest import Api, chat, events_of, text
from tests.upstream import Reply, ScriptedUpstream

PATH = "/api/completion/st/generate"
pytestmark = pytest.mark.gen_test


async def test_a_token_has_the_documented_fields_in_the_documented_order(api: Api) -> None:
    events = await api.stream([text("2", "hi there")])

    token = events[0]
    documented = ["id", "object", "created", "choices", "model"]
    assert list(token)[:5] == documented
    assert token["id"] == "2"
    assert token["object"] == "text_completion"
    assert isinstance(token["created"], int)
    assert token["model"] == "text-davinci-003"
    assert list(token["choices"][0]) == ["text", "index", "logprobs", "finish_reason"]


async def test_chat_and_completion_models_give_the_same_shape(api: Api) -> None:
    events = await api.stream([chat("a", "hi"), text("b", "hi")])

    shapes = {
        (tuple(event), tuple(event["choices"][0])) for event in events if event["type"] == "token"
    }
    assert len(shapes) == 1
