"""Every refusal names the place and says what is wrong, in our words and never in a library's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from handlers.validation import Validators, json_path, parse_object
from vision.errors import InvalidRequest

VALIDATORS = Validators()


def refusal(name: str, document: Any) -> str:
    with pytest.raises(InvalidRequest) as refused:
        VALIDATORS.check(name, document)
    assert refused.value.message.startswith(f"{refused.value.path}: ")
    return refused.value.message


def of_prompt(**fields: Any) -> str:
    """The refusal of a graph with one prompt that has these fields, from its place on."""
    prompt = {"id": "a", "mid": "m", "prompt": "p"} | fields
    message = refusal("generate", {"promptList": [prompt]})
    assert message.startswith("promptList[0]")
    return message.removeprefix("promptList[0]").removeprefix(".")


def outcome(call: Callable[[], object]) -> InvalidRequest | None:
    """The refusal, if it is one; anything else that is raised is a bug of ours."""
    try:
        call()
    except InvalidRequest as refused:
        return refused
    return None


# --- text that is no JSON object ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": NaN}',
        b'{"a": 1e400}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": "\xff"}',
        b'\xff\xfe{"a": 1}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\ud800\\ud800"}',
        b'{"a": 1} {}',
    ],
)
def test_text_that_is_not_json_is_refused(text: bytes):
    """Bytes that are not UTF-8, half a surrogate pair and numbers out of range included."""
    with pytest.raises(InvalidRequest, match="is not JSON: "):
        parse_object(text)


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
def test_json_that_is_nested_too_deeply_is_refused(bracket: bytes):
    with pytest.raises(InvalidRequest, match="the JSON is nested too deeply"):
        parse_object(b'{"a":' + bracket * 100_000)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[]", "a list"),
        ("null", "null"),
        ("1", "a number"),
        ("1.5", "a number"),
        ('"x"', "a string"),
        ("false", "true or false"),
    ],
)
def test_json_that_is_not_an_object_is_refused(text: str, kind: str):
    with pytest.raises(InvalidRequest) as refused:
        parse_object(text)
    assert refused.value.message == f"$: must be an object, not {kind}"


@given(st.binary(max_size=30) | st.text(max_size=30).map(str.encode))
def test_any_bytes_are_an_object_or_refused(body: bytes):
    refused = outcome(lambda: parse_object(body))
    assert refused is None or refused.message.startswith(("the body ", "$: must be an object"))


def test_object_comes_as_it_was_sent():
    assert parse_object('{"a": ["é😀", 1, 2.5, null, true]}') == {"a": ["é😀", 1, 2.5, None, True]}


# --- what a schema refuses ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "promptList: is missing"),
        ({"promptList": []}, "promptList: must not be empty"),
        ({"promptList": {}}, "promptList: must be a list, not an object"),
        ({"promptList": [5]}, "promptList[0]: must be an object, not a number"),
        ({"promptList": [None]}, "promptList[0]: must be an object, not null"),
        ([], "$: must be an object, not a list"),
    ],
)
def test_refusals_of_a_graph(document: Any, message: str):
    assert refusal("generate", document) == message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ""}, "id: must not be empty"),
        ({"id": 5}, "id: must be a string, not a number"),
        ({"id": "x" * 257}, "id: must have at most 256 characters"),
        ({"mid": True}, "mid: must be a string, not true or false"),
        ({"prompt": None}, "prompt: must be a string, not null"),
        ({"dependenceIdList": "b"}, "dependenceIdList: must be a list, not a string"),
        ({"dependenceIdList": ["b", 1]}, "dependenceIdList[1]: must be a string, not a number"),
        ({"depends": []}, "depends: no such field"),
        ({"we ird": 1}, '["we ird"]: no such field'),
        ({"retries": 1.5}, "retries: must be an integer, not a number"),
        ({"retries": -1}, "retries: must be at least 0"),
        ({"retries": 11}, "retries: must be at most 10"),
    ],
)
def test_refusals_of_a_prompt(fields: dict[str, Any], message: str):
    assert of_prompt(**fields) == message


@pytest.mark.parametrize("field", ["id", "mid", "prompt"])
def test_field_that_must_be_there_is_named(field: str):
    prompt = {"id": "a", "mid": "m", "prompt": "p"}
    del prompt[field]
    whole = [{"id": "x", "mid": "m", "prompt": "p"}, prompt]
    assert refusal("generate", {"promptList": whole}) == f"promptList[1].{field}: is missing"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([], "params: must be an object, not a list"),
        ({"temperature": "hot"}, "params.temperature: must be a number, not a string"),
        ({"temperature": 3}, "params.temperature: must be at most 2"),
        ({"n": 0}, "params.n: must be at least 1"),
        ({"stop": ["a", 1]}, "params.stop[1]: must be a string, not a number"),
        ({"stop": ["a"] * 5}, "params.stop: must have at most 4 entries"),
        ({"prompt": []}, "params.prompt: must not be empty"),
        ({"tempreature": 1}, "params.tempreature: no such field"),
        ({"messages": [{"role": "user"}]}, "params.messages[0].content: is missing"),
        (
            {"messages": [{"role": "tool", "content": ""}]},
            'params.messages[0].role: must be one of "user", "assistant", "system"',
        ),
        ({"logit_bias": {"x-1": 101}}, 'params.logit_bias["x-1"]: must be at most 100'),
    ],
)
def test_refusals_of_params_that_may_also_be_null(params: Any, message: str):
    assert of_prompt(params=params) == message


@pytest.mark.parametrize("where", ["beside", "inside"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ignore", 'onError: must be one of "skip", "fail"'),
        ({}, "onError.default: is missing"),
        ({"default": 1}, "onError.default: must be a string, not a number"),
        ({"default": "x", "else": 1}, "onError.else: no such field"),
    ],
)
def test_refusals_of_on_error_are_those_of_the_form_that_was_meant(
    value: Any, message: str, where: str
):
    if where == "beside":
        assert of_prompt(onError=value) == message
    else:
        assert of_prompt(params={"onError": value}) == f"params.{message}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "timeout: must be more than 0"),
        (3601, "timeout: must be at most 3600"),
        ("5", "timeout: must be a number or an object, not a string"),
        ({"idle": 0}, "timeout.idle: must be more than 0"),
        ({"first": 1}, "timeout.first: no such field"),
    ],
)
def test_refusals_of_timeouts(value: Any, message: str):
    assert of_prompt(timeout=value) == message


@pytest.mark.parametrize(
    "fields",
    [
        {"params": None},
        {"params": {}},
        {"dependenceIdList": None},
        {"onError": "skip"},
        {"onError": {"default": ""}},
        {"timeout": 0.5},
        {"timeout": {"connect": 1, "firstToken": 2, "idle": 3, "total": 4}},
        {"timeout": {}},
        {"retries": 0},
    ],
)
def test_what_is_documented_is_accepted(fields: dict[str, Any]):
    prompt = {"id": "a", "mid": "m", "prompt": ""} | fields
    VALIDATORS.check("generate", {"promptList": [prompt]})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "type: is missing"),
        (
            {"type": "hello"},
            'type: must be one of "generate", "subscribe", "unsubscribe", "cancel", '
            '"watchOrders", "ping"',
        ),
        ({"type": 1}, "type: must be one of"),
    ],
)
def test_refusals_of_a_socket_message(document: Any, message: str):
    assert refusal("socket", document).startswith(message)


def test_every_definition_can_be_checked_by_its_own_name():
    message = {"type": "subscribe", "missionId": "m", "after": -1}
    assert refusal("socket#subscribe", message) == "after: must be at least 0"
    assert refusal("socket#cancel", {"type": "ping", "missionId": "m"}).startswith("type: must be ")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
_FIELDS = st.sampled_from(
    ["id", "mid", "prompt", "dependenceIdList", "params", "timeout", "retries", "onError", "?"]
)


@given(st.dictionaries(_FIELDS, _JSON))
def test_refusal_of_any_prompt_is_one_short_sentence(fields: dict[str, Any]):
    """A validator's own wording would quote the document."""
    prompt = {"id": "a", "mid": "m", "prompt": "p"} | fields
    refused = outcome(lambda: VALIDATORS.check("generate", {"promptList": [prompt]}))
    if refused is not None:
        assert refused.path.startswith("promptList[0]")
        said = refused.message.removeprefix(f"{refused.path}: ")
        assert said.startswith(("must ", "is missing", "no such field"))
        assert len(said) < 80


def test_ten_thousand_prompts_are_checked_without_holding_the_loop():
    prompts = [{"id": str(i), "mid": "m", "prompt": "p", "params": {}} for i in range(10_000)]
    begun = time.perf_counter()
    VALIDATORS.check("generate", {"promptList": prompts})
    assert time.perf_counter() - begun < 0.2


@pytest.mark.parametrize(
    ("steps", "path"),
    [
        ([], "$"),
        (["a"], "a"),
        (["a", 3, "b"], "a[3].b"),
        ([0], "[0]"),
        (["a b", "ü", '"'], '["a b"].ü["\\""]'),
    ],
)
def test_json_path(steps: list[str | int], path: str):
    assert json_path(steps) == path
