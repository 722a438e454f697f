"""Whatever prompts and models say: results are put in once, and never looked at again."""

from __future__ import annotations

from hypothesis import given, strategies as st

from vision.missions.template import parse_template

_IDS = st.text(st.characters(exclude_characters="{}\r\n", codec="utf-8"), min_size=1).filter(
    lambda name: name == name.strip(" \t")
)
# Much of what a model may write to be expanded, and nothing else.
_OUTPUT = st.text(st.sampled_from("{}ab\\ \n"))
_PLAIN = st.text(st.characters(exclude_characters="{}", codec="utf-8"))


def guarded(text: str) -> str:
    """A backslash before a placeholder would escape it."""
    return text.rstrip("\\")


@given(st.lists(st.tuples(_PLAIN.map(guarded), _IDS)), _PLAIN, st.data())
def test_results_stand_where_the_placeholders_were_and_are_as_they_came(
    parts: list[tuple[str, str]], end: str, data: st.DataObject
):
    results = {name: data.draw(_OUTPUT) for _, name in parts}
    prompt = "".join(f"{text}{{{{{name}}}}}" for text, name in parts) + end
    expected = "".join(text + results[name] for text, name in parts) + end
    assert parse_template(prompt).fill(results, list(results)).prompt == expected


@given(_OUTPUT | _PLAIN)
def test_text_in_which_no_placeholder_was_found_is_unchanged_but_for_escapes(text: str):
    template = parse_template(text)
    assert len(template.texts) == len(template.names) + 1
    if not template.names and "\\{{" not in text:
        assert template.fill({}, ()).prompt == text


@given(_IDS, _PLAIN)
def test_escaped_placeholder_comes_out_as_its_text(name: str, text: str):
    template = parse_template(f"{guarded(text)}\\{{{{{name}}}}}")
    assert template.names == ()
    assert template.fill({}, ()).prompt == f"{guarded(text)}{{{{{name}}}}}"


@given(st.dictionaries(st.sampled_from("abc"), _OUTPUT, min_size=1), _PLAIN)
def test_results_that_are_not_named_precede_the_prompt_by_a_blank_line(
    results: dict[str, str], text: str
):
    expected = "".join(f"{result}\n\n" for result in results.values()) + text
    assert parse_template(text).fill(results, list(results)).prompt == expected
