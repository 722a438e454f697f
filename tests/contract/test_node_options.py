"""Per node: `timeout`, `retries`, `onError`, in `params` or beside it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.contract.conftest import Api, chat, contents_of
from tests.upstream import NEVER, Reply, ScriptedUpstream

pytestmark = pytest.mark.gen_test


async def ends(api: Api, *prompt_list: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The result of each node."""
    mission_id = await api.generate([*prompt_list])
    return {result["id"]: result for result in (await api.finished(mission_id))["data"]}


@pytest.mark.parametrize(
    ("timeout", "reply", "word"),
    [
        ({"firstToken": 0.2}, Reply(before_first=NEVER), "first token"),
        ({"idle": 0.2}, Reply(tokens=9, stop_after=1, hang=True), "idle"),
        ({"total": 0.3}, Reply(tokens=1000, delay=0.05), "total"),
        (0.3, Reply(tokens=1000, delay=0.05), "total"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
async def test_a_node_that_takes_too_long_fails_and_says_which_time_was_over(
    api: Api, upstream: ScriptedUpstream, timeout: Any, reply: Reply, word: str, *, beside: bool
) -> None:
    upstream.on("slow", reply)
    options = {"timeout": timeout, "retries": 0}
    prompt = chat("a", "slow", **(options if beside else {"params": options}))

    result = (await ends(api, prompt))["a"]

    assert result["status"] == "failed"
    assert result["error"]["code"] == "upstream_timeout"
    assert word in result["error"]["message"]
    await upstream.wait_closed(1, timeout=1)


async def test_retries_are_counted(api: Api, upstream: ScriptedUpstream) -> None:
    upstream.on("bad", Reply(status=503))

    result = (await ends(api, chat("a", "bad", retries=1)))["a"]

    assert (result["status"], result["attempts"], len(upstream.requests)) == ("failed", 2, 2)


async def test_what_cannot_succeed_is_not_tried_again(api: Api, upstream: ScriptedUpstream) -> None:
    upstream.on("bad", Reply(status=422, error={"message": "no"}))

    result = (await ends(api, chat("a", "bad", retries=5)))["a"]

    assert (result["attempts"], len(upstream.requests)) == (1, 1)


async def test_retry_after_is_respected(api: Api, upstream: ScriptedUpstream) -> None:
    upstream.on("busy", Reply(status=429, headers={"Retry-After": "1"}), Reply(tokens=["ok"]))
    began = time.monotonic()

    result = (await ends(api, chat("a", "busy")))["a"]

    assert result["content"] == "ok"
    assert time.monotonic() - began >= 1


async def test_on_error_fail_ends_the_mission(api: Api, upstream: ScriptedUpstream) -> None:
    upstream.on("bad", Reply(status=400, error={"message": "no"}, before_headers=0.1))
    upstream.on("slow", Reply(before_first=NEVER))

    results = await ends(
        api, chat("a", "bad", onError="fail"), chat("b", "slow"), chat("c", "{{b}}", "b")
    )

    assert [results[id_]["status"] for id_ in "abc"] == ["failed", "cancelled", "cancelled"]
    await upstream.wait_closed(1, timeout=1)


async def test_on_error_default_lets_dependents_go_on_with_the_text(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("bad", Reply(status=400, error={"message": "no"}))

    events = await api.stream(
        [chat("a", "bad", onError={"default": "nothing"}), chat("b", "got {{a}}", "a")]
    )

    assert contents_of(events) == {"a": "nothing", "b": "echo: got nothing"}
    done = next(event for event in events if event.get("statue") and event.get("id") == "a")
    assert (done["statue"], done["error"]["code"]) == ("[DONE]", "upstream_rejected")
    assert events[-1]["status"] == "succeeded"


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"retries": 99}, "promptList[0].retries"),
        ({"retries": "1"}, "promptList[0].retries"),
        ({"timeout": 0}, "promptList[0].timeout"),
        ({"timeout": {"idle": -1}}, "promptList[0].timeout.idle"),
        ({"timeout": {"idel": 1}}, "promptList[0].timeout.idel"),
        ({"onError": "explode"}, "promptList[0].onError"),
        ({"onError": {"defalt": "x"}}, "promptList[0].onError.defalt"),
        ({"params": {"retries": -1}}, "promptList[0].params.retries"),
        ({"retries": 1, "params": {"retries": 1}}, "promptList[0].retries"),
        ({"params": {"n": 2}}, "promptList[0].params.n"),
        ({"params": {"suffix": "x"}}, "promptList[0].params.suffix"),
        ({"params": {"temperature": 1, "top_p": 1}}, "promptList[0].params.top_p"),
        ({"params": {"prompt": "x"}}, "promptList[0].params.prompt"),
        ({"params": {"colour": 1}}, "promptList[0].params.colour"),
        ({"params": []}, "promptList[0].params"),
    ],
)
async def test_a_wrong_option_is_refused_with_its_path(
    api: Api, options: dict[str, Any], path: str
) -> None:
    response = await api.post(
        "/api/completion/generate", {"promptList": [chat("a", "x", **options)]}
    )

    assert response.code == 400
    assert json.loads(response.body)["error"]["path"] == path
