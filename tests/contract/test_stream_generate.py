"""stream 任务生成: POST /api/completion/st/generate."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from tests.contract.conftest import KEY, Api, chat, contents_of, events_of, sse_of, text
from tests.upstream import Reply, ScriptedUpstream

PATH = "/api/completion/st/generate"
pytestmark = pytest.mark.gen_test


async def test_a_token_has_the_documented_fields_in_the_documented_order(api: Api) -> None:
    events = await api.stream([text("2", "hi there")])

    token = events[0]
    assert list(token)[:5] == ["id", "object", "created", "choices", "model"]
    assert token["id"] == "2"
    assert token["object"] == "text_completion"
    assert isinstance(token["created"], int)
    assert token["model"] == "text-davinci-003"
    assert list(token["choices"][0]) == ["text", "index", "logprobs", "finish_reason"]


async def test_chat_and_completion_models_give_the_same_shape(api: Api) -> None:
    events = await api.stream([chat("a", "hi"), text("b", "hi")])

    tokens = [event for event in events if event["type"] == "token"]
    assert {event["id"] for event in tokens} == {"a", "b"}
    assert len({(tuple(event), tuple(event["choices"][0])) for event in tokens}) == 1


async def test_the_last_token_of_a_node_carries_its_finish_reason(api: Api) -> None:
    events = await api.stream([chat("a", "hi")])

    tokens = [event for event in events if event["type"] == "token"]
    assert tokens[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_node_that_is_done_says_so_in_the_documented_form(api: Api) -> None:
    events = await api.stream([chat("2", "hi")])

    done = events[-2]
    assert list(done.items())[:2] == [("id", "2"), ("statue", "[DONE]")]


async def test_the_mission_ends_with_finished_and_its_id(api: Api) -> None:
    response = await api.post(PATH, {"promptList": [chat("1", "hi")]})

    finished = events_of(response.body)[-1]
    mission_id = response.headers["X-Mission-Id"]
    assert list(finished.items())[:2] == [("missionId", mission_id), ("statue", "[FINISHED]")]


async def test_a_mission_without_params_and_dependencies_runs_as_in_the_document(api: Api) -> None:
    prompt = {
        "mid": "gpt-3.5-turbo",
        "id": "50561a82-aa00-41c8-8091-1e50e22fb5f2",
        "prompt": '"你是谁"',
    }

    events = await api.stream([prompt])

    assert contents_of(events) == {prompt["id"]: 'echo: "你是谁"'}


async def test_events_are_numbered_from_one_without_gaps(api: Api) -> None:
    events = await api.stream([chat("a", "one two"), chat("b", "three"), chat("c", "{{a}}", "a")])

    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert len({event["missionId"] for event in events}) == 1


async def test_a_node_gets_the_results_of_its_dependencies(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("first", Reply(tokens=["A"]))
    upstream.on("second", Reply(tokens=["B {{c}}"]))

    await api.stream([chat("a", "first"), chat("b", "second"), chat("c", "got {{a}}", "b", "a")])

    assert upstream.requests[-1].prompt == "B {{c}}\n\ngot A"


async def test_an_event_stream_has_the_event_number_as_id(api: Api) -> None:
    body = {"promptList": [chat("a", "hi there")]}

    response = await api.post(PATH, body, Accept="text/event-stream")

    events = sse_of(response.body)
    assert response.headers["Content-Type"] == "text/event-stream"
    assert [number for number, _ in events] == [event["seq"] for _, event in events]
    assert events[-1][1]["statue"] == "[FINISHED]"


async def test_streams_tell_proxies_not_to_hold_them_back(api: Api) -> None:
    response = await api.post(PATH, {"promptList": [chat("a", "hi")]})

    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["Cache-Control"] == "no-cache"


async def test_a_token_goes_out_before_the_next_has_come(
    api: Api, upstream: ScriptedUpstream, base_url: str
) -> None:
    upstream.on("slow", Reply(tokens=["one", "two"], stop_after=1, hang=True))

    async with aiohttp.ClientSession(headers=KEY) as session:
        body = {"promptList": [chat("a", "slow")]}
        async with session.post(base_url + PATH, json=body) as response:
            line = await asyncio.wait_for(response.content.readline(), 5)

    assert json.loads(line)["choices"][0]["text"] == "one"


async def test_a_silent_stream_has_heartbeats_that_json_parsers_skip(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(tokens=["late"], before_first=0.7))

    response = await api.post(PATH, {"promptList": [chat("a", "slow")]})

    assert response.body.startswith(b"  ")
    assert contents_of(events_of(response.body)) == {"a": "late"}


async def test_a_silent_event_stream_has_comments_as_heartbeats(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("slow", Reply(tokens=["late"], before_first=0.7))

    response = await api.post(PATH, {"promptList": [chat("a", "slow")]}, Accept="text/event-stream")

    assert response.body.startswith(b": heartbeat\n\n")
    assert contents_of([event for _, event in sse_of(response.body)]) == {"a": "late"}


async def test_a_body_without_chunks_ends_with_its_connection(api: Api, base_url: str) -> None:
    """A client of HTTP/1.0 that wants to keep the connection has no other end to wait for."""
    body = json.dumps({"promptList": [chat("a", "hi")]})
    head = [f"POST {PATH} HTTP/1.0", "Connection: keep-alive", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in KEY.items()]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(base_url.rpartition(":")[2]))
    writer.write("\r\n".join([*head, "", body]).encode())

    answer = await asyncio.wait_for(reader.read(), 5)

    writer.close()
    assert contents_of(events_of(answer.partition(b"\r\n\r\n")[2])) == {"a": "echo: hi"}


async def test_characters_that_were_cut_between_two_reads_arrive_whole(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("split", Reply(tokens=["你是", "谁🙂"], split=1))

    events = await api.stream([chat("a", "split")])

    assert contents_of(events) == {"a": "你是谁🙂"}


async def test_a_failed_node_says_why_and_its_dependents_are_skipped(
    api: Api, upstream: ScriptedUpstream
) -> None:
    upstream.on("bad", Reply(status=400, error={"message": "no such thing"}))

    events = await api.stream(
        [chat("a", "bad"), chat("b", "{{a}}", "a"), chat("c", "{{b}}", "b"), chat("d", "good")]
    )

    ends = {event["id"]: event for event in events if event.get("statue") and "id" in event}
    assert ends["a"]["statue"] == "[ERROR]"
    assert ends["a"]["error"]["code"] == "upstream_rejected"
    assert "no such thing" in ends["a"]["error"]["message"]
    assert ends["b"]["statue"] == ends["c"]["statue"] == "[SKIPPED]"
    assert ends["d"]["statue"] == "[DONE]"
    assert events[-1]["statue"] == "[FINISHED]"
    assert events[-1]["status"] == "failed"


async def test_a_stream_that_was_cut_starts_again_after_a_restarted_event(
    api: Api, upstream: ScriptedUpstream
) -> None:
    cut = Reply(tokens=["half ", "gone"], stop_after=1, cut=True)
    upstream.on("cut", cut, Reply(tokens=["whole"]))

    events = await api.stream([chat("a", "cut")])

    kinds = [event["type"] for event in events]
    assert "restarted" in kinds
    assert next(e for e in events if e["type"] == "restarted")["statue"] == "[RESTARTED]"
    assert contents_of(events) == {"a": "whole"}


async def test_a_thousand_roots_and_one_that_needs_them_all_run(api: Api) -> None:
    roots = [text(str(number), "x") for number in range(1999)]

    events = await api.stream([*roots, text("last", "end", *[root["id"] for root in roots])])

    assert sum(event["type"] == "done" for event in events) == 2000
    assert events[-1]["status"] == "succeeded"


async def test_a_chain_of_five_hundred_runs(api: Api, upstream: ScriptedUpstream) -> None:
    upstream.on("", Reply(tokens=["x"]))
    chain = [chat("0", "go")] + [
        chat(str(i), f"{{{{{i - 1}}}}}", str(i - 1)) for i in range(1, 500)
    ]

    events = await api.stream(chain)

    assert [event["id"] for event in events if event["type"] == "done"] == [*map(str, range(500))]
