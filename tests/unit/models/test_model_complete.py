"""Whole answers: retries, several results, the best of several, several prompts."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from asking import PATIENT, text_of

from tests.upstream import NEVER, Reply
from vision.errors import ModelError
from vision.models.call import Usage, single_call

KINDS = pytest.mark.parametrize("model", ["chatty", "writer"])
ODD = {"texts": ["first", "second", "third", "fourth"]}


def single(there, prompt, **params):
    messages = [{"role": "user", "content": prompt}]
    return single_call(there.catalog.route("chatty"), {"messages": messages, **params})


def written(there, prompt, **params):
    return single_call(there.catalog.route("writer"), {"prompt": prompt, **params})


def asked_n(there):
    return [request.body.get("n", 1) for request in there.upstream.requests]


async def failure_of(there, call, retries=0, timeouts=PATIENT):
    with pytest.raises(ModelError) as caught:
        await there.models.complete(call, timeouts, retries)
    return caught.value


@pytest.mark.gen_test
async def test_one_answer_takes_one_request_that_is_not_streamed(io_loop, there):
    completion = await there.models.complete(single(there, "one two"), PATIENT, 0)
    assert completion.texts == ("echo: one two",)
    assert completion.finish_reasons == ("stop",)
    assert completion.usage == Usage(2, 3, 5)
    (request,) = there.upstream.requests
    assert not {"stream", "n", "best_of", "logprobs"} & set(request.body)


@pytest.mark.gen_test
async def test_prompts_are_asked_one_by_one_and_answered_in_order(io_loop, there):
    there.upstream.on("slow", Reply(before_headers=0.2))
    call = written(there, ["slow one", "two", "three", "four", "five"])
    completion = await there.models.complete(call, PATIENT, 0)
    assert completion.texts == tuple(
        f"echo: {prompt}" for prompt in ("slow one", "two", "three", "four", "five")
    )
    assert completion.usage == Usage(6, 11, 17)
    assert there.upstream.most_running <= 3


@pytest.mark.gen_test
async def test_n_results_come_from_one_request_where_the_upstream_can(io_loop, there):
    there.upstream.on("several", Reply(**ODD))
    completion = await there.models.complete(single(there, "several", n=3), PATIENT, 0)
    assert completion.texts == ("first", "second", "third")
    assert asked_n(there) == [3]


@pytest.mark.gen_test
async def test_results_that_the_upstream_did_not_give_are_asked_for(io_loop, there):
    there.upstream.on("several", Reply(**ODD, most_choices=1))
    completion = await there.models.complete(single(there, "several", n=3, seed=10), PATIENT, 0)
    assert len(completion.texts) == 3
    assert asked_n(there) == [3, 1, 1]
    seeds = sorted(request.body["seed"] for request in there.upstream.requests)
    assert seeds == [10, 11, 12]


@pytest.mark.gen_test
async def test_an_upstream_with_a_smaller_bound_on_n_is_asked_one_by_one(io_loop, there):
    there.upstream.on("several", Reply(**ODD, most_n=2))
    completion = await there.models.complete(single(there, "several", n=3), PATIENT, 0)
    assert completion.texts == ("first",) * 3
    assert asked_n(there) == [3, 1, 1, 1]


@KINDS
@pytest.mark.gen_test
async def test_best_of_keeps_the_most_probable(io_loop, there, model):
    there.upstream.on("best", Reply(**ODD, logprobs=[-3, -1, -4, -2]))
    call = single(there, "best", best_of=4, n=2)
    if model == "writer":
        call = written(there, "best", best_of=4)
    completion = await there.models.complete(call, PATIENT, 0)
    assert completion.texts == ("second", "fourth")[: call.n]
    (request,) = there.upstream.requests
    assert request.body["n"] == 4
    assert request.body["logprobs"] == (True if model == "chatty" else 1)
    assert "best_of" not in request.body


@pytest.mark.gen_test
async def test_the_best_is_found_among_single_answers_too(io_loop, there):
    replies = [Reply(texts=[f"t{n}"], logprobs=[n], most_choices=1) for n in (-3, -1, -2)]
    there.upstream.on("best", *replies)
    completion = await there.models.complete(written(there, "best", best_of=3), PATIENT, 0)
    assert completion.texts == ("t-1",)
    assert completion.usage == Usage(3, 6, 9)


@pytest.mark.gen_test
async def test_each_prompt_has_its_own_best(io_loop, there):
    there.upstream.on("one", Reply(texts=["a", "b"], logprobs=[-1, -2]))
    there.upstream.on("two", Reply(texts=["c", "d"], logprobs=[-2, -1]))
    call = written(there, ["one", "two"], best_of=2)
    assert (await there.models.complete(call, PATIENT, 0)).texts == ("a", "d")


@pytest.mark.gen_test
async def test_without_log_probabilities_nothing_is_chosen_at_random(io_loop, there):
    there.upstream.on("best", Reply(**ODD, logprobs=None))
    error = await failure_of(there, single(there, "best", best_of=2))
    assert (error.code, error.retryable) == ("upstream_rejected", False)
    assert "no log probabilities" in error.message


@pytest.mark.gen_test
async def test_an_empty_candidate_is_never_the_best(io_loop, there):
    replies = [
        Reply(texts=[""], logprobs=None, most_choices=1),
        Reply(texts=["some"], logprobs=[-9], most_choices=1),
    ]
    there.upstream.on("best", *replies)
    completion = await there.models.complete(single(there, "best", best_of=2), PATIENT, 0)
    assert completion.texts == ("some",)


@pytest.mark.gen_test
async def test_a_stream_with_best_of_is_one_chunk(io_loop, there):
    there.upstream.on("best", Reply(**ODD, logprobs=[-3, -1, -4, -2]))
    (chunk,) = await there.collect(there.call("best", best_of=3))
    assert (text_of([chunk]), chunk.finish_reason) == ("second", "stop")
    assert chunk.usage is not None


@pytest.mark.parametrize("fields", [{"n": 2}, {"prompt": ["a", "b"]}])
@pytest.mark.gen_test
async def test_a_stream_of_several_results_is_a_mistake(io_loop, there, fields):
    call = single_call(there.catalog.route("writer"), {"prompt": "x", **fields})
    with pytest.raises(ValueError, match="one prompt and one result"):
        await there.collect(call)


@pytest.mark.gen_test
async def test_what_may_pass_is_tried_again(io_loop, there):
    failures = [Reply(status=503), Reply(status=429, headers={"retry-after-ms": "10"})]
    there.upstream.on("again", *failures, Reply())
    completion = await there.models.complete(single(there, "again"), PATIENT, 2)
    assert completion.texts == ("echo: again",)
    assert len(there.upstream.requests) == 3


@pytest.mark.gen_test
async def test_the_upstreams_wish_is_waited_for(io_loop, there):
    there.upstream.on("again", Reply(status=429, headers={"Retry-After": "1"}), Reply())
    began = time.monotonic()
    await there.models.complete(single(there, "again"), PATIENT, 1)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize(
    ("reply", "retries", "requests"),
    [(Reply(status=400), 5, 1), (Reply(status=500), 0, 1), (Reply(status=500), 1, 2)],
)
@pytest.mark.gen_test
async def test_retries_are_counted_and_not_wasted(io_loop, there, reply, retries, requests):
    there.upstream.on("fail", reply)
    await failure_of(there, single(there, "fail"), retries)
    assert len(there.upstream.requests) == requests


@pytest.mark.gen_test
async def test_the_first_failure_ends_the_other_requests(io_loop, there):
    there.upstream.on("hang", Reply(before_headers=NEVER))
    there.upstream.on("bad", Reply(status=400, before_headers=0.1))
    error = await failure_of(there, written(there, ["hang", "bad"]))
    assert error.code == "upstream_rejected"
    await there.upstream.wait_closed(1)
    assert there.slots.running == 0


@pytest.mark.gen_test
async def test_the_total_timeout_bounds_a_whole_answer(io_loop, there):
    there.upstream.on("slow", Reply(before_headers=NEVER))
    bounds = replace(PATIENT, total=0.2, first_token=0.1)
    error = await failure_of(there, single(there, "slow"), timeouts=bounds)
    assert error.message == "no complete answer from there within 0.2 s (total timeout)"
    await there.upstream.wait_closed(1)


@pytest.mark.parametrize("body", [b"{}", b'{"choices":[]}', b"[]", b"nonsense", b""])
@pytest.mark.gen_test
async def test_an_answer_that_is_none_is_garbled(io_loop, there, body):
    there.upstream.on("odd", Reply(body=body))
    assert (await failure_of(there, single(there, "odd"))).code == "upstream_garbled"


@pytest.mark.gen_test
async def test_an_error_object_in_a_good_response_is_that_error(io_loop, there):
    there.upstream.on("odd", Reply(body=b'{"error":{"message":"busy","code":503}}'))
    error = await failure_of(there, single(there, "odd"))
    assert (error.code, error.status) == ("upstream_error", 503)
    assert error.message == "the upstream answered 503: busy"
