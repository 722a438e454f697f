"""Where the results of dependencies go in a prompt."""

from __future__ import annotations

import time

import pytest

from vision.missions.template import parse_template


def render(prompt: str, dependencies: tuple[str, ...] = (), **results: str) -> str:
    return parse_template(prompt).fill(results, dependencies or tuple(results)).prompt


def test_placeholder_is_replaced_by_the_result_wherever_it_stands():
    assert render("{{a}} and {{b}} and {{a}}", a="1", b="2") == "1 and 2 and 1"


def test_blanks_around_an_id_do_not_count():
    assert render("{{ a }}{{\ta\t}}", a="1") == "11"


def test_id_may_have_blanks_and_any_letters_inside():
    assert parse_template("{{ the first }}{{ü-1.x}}").names == ("the first", "ü-1.x")


def test_results_that_the_prompt_does_not_name_come_before_it_in_the_order_of_the_list():
    assert render("ask {{b}}", ("c", "b", "a"), a="A", b="B", c="C") == "C\n\nA\n\nask B"


def test_prompt_that_names_nothing_follows_all_results_after_a_blank_line():
    assert render("ask", a="A", b="B") == "A\n\nB\n\nask"


def test_what_a_model_wrote_is_never_expanded():
    assert render("{{a}}{{b}}", a="{{b}}", b="{{a}}") == "{{b}}{{a}}"


def test_results_that_only_together_look_like_a_placeholder_are_not_expanded():
    assert render("{{a}}{{b}}{{c}}", a="{{", b="c", c="}}") == "{{c}}"


def test_backslash_before_a_placeholder_gives_its_own_text():
    assert parse_template(r"\{{a}} {{b}}").names == ("b",)
    assert render(r"\{{a}} {{b}}", b="B") == "{{a}} B"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "{{}}", "{{ }}", "{{\t \t}}", "{{a}", "{a}}", "{{a\n}}", '{"a": {"b": 1}}', "}}{{"],
)
def test_text_without_a_placeholder_stays_as_it_is(text: str):
    assert parse_template(text).names == ()
    assert render(text) == text


def test_of_three_braces_the_inner_two_make_the_placeholder():
    assert render("{{{a}}}", a="A") == "{A}"


@pytest.mark.parametrize(
    "prompt",
    ["{{" + " " * 500_000, "{{" * 250_000, r"\{{a}}" * 100_000, "{{ " * 200_000 + "}}"],
    ids=["blanks", "braces", "escapes", "openings"],
)
def test_time_grows_with_the_length_of_a_prompt_and_no_faster(prompt: str):
    """Half a megabyte takes some milliseconds; a pattern that goes back takes minutes."""
    begun = time.perf_counter()
    parse_template(prompt)
    assert time.perf_counter() - begun < 1
