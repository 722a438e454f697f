"""What a graph must be to run, and how a refusal reads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.missions.playing import prompt
from vision.errors import InvalidRequest
from vision.missions.graph import OnError, build_graph


def refusal(*prompts: dict[str, Any]) -> str:
    with pytest.raises(InvalidRequest) as refused:
        build_graph(prompts)
    assert refused.value.path
    assert refused.value.message.startswith(f"{refused.value.path}: ")
    return refused.value.message


def test_graph_keeps_the_order_of_the_list_and_knows_the_dependents():
    graph = build_graph([prompt("d", "b"), prompt("b", "a"), prompt("c", "a"), prompt("a")])
    assert list(graph.nodes) == ["d", "b", "c", "a"]
    assert graph.dependents == {"d": (), "b": ("d",), "c": (), "a": ("b", "c")}


def test_graph_and_its_nodes_cannot_be_changed():
    graph = build_graph([prompt("a")])
    with pytest.raises(AttributeError, match="immutable"):
        graph.nodes["a"].model = "other"  # type: ignore[misc]


@pytest.mark.parametrize("absent", [{"dependenceIdList": None, "params": None}, {}])
def test_what_is_null_or_absent_is_as_usual(absent: dict[str, Any]):
    node = build_graph([{"id": "a", "mid": "m", "prompt": "p"} | absent]).nodes["a"]
    assert (node.model, node.dependencies, node.params) == ("m", (), {})
    assert (node.timeout, node.retries, node.on_error) == (None, 2, OnError("skip"))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("skip", OnError("skip")),
        ("fail", OnError("fail")),
        ({"default": "x"}, OnError("default", "x")),
        ({"default": ""}, OnError("default", "")),
    ],
)
def test_on_error_as_it_is_meant(said: Any, meant: OnError):
    assert build_graph([prompt("a", onError=said)]).nodes["a"].on_error == meant


def test_options_may_stand_in_params_and_never_reach_the_model():
    params = {"temperature": 1, "timeout": {"idle": 2}, "retries": 0, "onError": "fail"}
    node = build_graph([prompt("a", params=params)]).nodes["a"]
    assert node.params == {"temperature": 1}
    assert (node.timeout, node.retries, node.on_error) == ({"idle": 2}, 0, OnError("fail"))


def test_option_that_is_given_twice_is_refused():
    assert refusal(prompt("a", retries=1, params={"retries": 0})) == (
        "promptList[0].retries: retries stands in params and beside it; give it once"
    )


def test_second_node_with_an_id_is_refused():
    assert refusal(prompt("a"), prompt("b"), prompt("a")) == (
        'promptList[2].id: the id "a" is already that of promptList[0]'
    )


def test_unknown_dependency_is_refused():
    prompts = [prompt("a"), prompt("b"), prompt("c"), prompt("d", "a", "7")]
    assert refusal(*prompts) == 'promptList[3].dependenceIdList[1]: no prompt with id "7"'


def test_dependency_on_itself_is_refused():
    assert refusal(prompt("a"), prompt("b", "a", "b")) == (
        'promptList[1].dependenceIdList[1]: the prompt "b" depends on itself'
    )


def test_dependency_that_is_named_twice_is_refused():
    assert refusal(prompt("a"), prompt("b", "a", "a")) == (
        'promptList[1].dependenceIdList[1]: "a" is named twice'
    )


def test_placeholder_that_names_no_dependency_is_refused():
    assert refusal(prompt("a"), prompt("b", prompt="of {{ a }}")) == (
        'promptList[1].prompt: the placeholder {{a}} names no dependency; add "a" to '
        r"dependenceIdList, or write \{{a}} for the text itself"
    )


def test_cycle_is_printed_as_a_path():
    prompts = [prompt("x", "a"), prompt("a", "c"), prompt("b", "a"), prompt("c", "b")]
    assert refusal(prompt("free"), *prompts) == (
        "promptList[2].dependenceIdList: the dependencies form a cycle: a -> c -> b -> a"
    )


def test_cycle_of_two_is_printed_too():
    assert refusal(prompt("a", "b"), prompt("b", "a")) == (
        "promptList[0].dependenceIdList: the dependencies form a cycle: a -> b -> a"
    )


def test_chain_of_ten_thousand_is_a_graph():
    chain = [prompt("0")] + [prompt(str(i), str(i - 1)) for i in range(1, 10_000)]
    assert len(build_graph(chain[::-1]).nodes) == 10_000


def test_cycle_of_ten_thousand_is_refused_with_its_beginning_and_its_end():
    ring = [prompt(str(i), str((i + 1) % 10_000)) for i in range(10_000)]
    message = refusal(*ring)
    assert "cycle: 0 -> 1 -> 2" in message
    assert message.endswith("9998 -> 9999 -> 0")
    assert len(message) < 2_000
