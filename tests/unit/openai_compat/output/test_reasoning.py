"""Reasoning that the prompt opened, that never closes, and that is none."""

import pytest

from tests.support.outputs import FUNCTIONS, parser_of, run

MARKS = {"think": ("<think>", "</think>"), "mistral": ("[THINK]", "[/THINK]"),
         "kimi": ("◁think▷", "◁/think▷")}  # fmt: skip


@pytest.mark.parametrize("name", MARKS)
def test_an_open_part_goes_on_to_its_end(name):
    """Where the prompt ended inside of the reasoning, the answer begins with it."""
    begin, end = MARKS[name]
    for text in (f"\na b\n{end}\n\nc", f"a b{end}c", f"{begin}\na b{end}\nc"):
        found = run(parser_of(f"think:{name}", opened=True), list(text))
        assert (found.reasoning, found.content) == ("a b", "c")


@pytest.mark.parametrize("name", MARKS)
def test_reasoning_that_never_ends_is_reasoning(name):
    """An answer cut off in its reasoning has no content."""
    begin, end = MARKS[name]
    found = run(parser_of(f"think:{name}"), list(f"{begin}a {end[:-1]}"))
    assert (found.reasoning, found.content) == (f"a {end[:-1]}", "")


@pytest.mark.parametrize("name", MARKS)
def test_markers_after_the_first_text_are_content(name):
    """An answer that does not begin with reasoning has none."""
    begin, end = MARKS[name]
    text = f" a {begin}b{end} c\n"
    found = run(parser_of(f"think:{name}"), list(text))
    assert (found.reasoning, found.content) == ("", text)


def test_an_open_harmony_prompt_begins_in_the_analysis():
    """The analysis goes on to the end of its message; then messages follow."""
    text = "So.<|end|><|start|>assistant<|channel|>final<|message|>Yes."
    found = run(parser_of("harmony+harmony", opened=True), list(text))
    assert (found.reasoning, found.content) == ("So.", "Yes.")


@pytest.mark.parametrize(
    "text",
    [
        "No header at all, a < and a <| in it.",
        "<|channel|>nonsense<|message|>x<|end|>",
        "<|channel|>commentary to=functions.none <|constrain|>json<|message|>{}<|call|>",
        "<|channel|>commentary to=browser.search code<|message|>{}<|call|>",
        "<|start|>user<|message|>x<|end|>",
        "<|channel|>final",
    ],
)
def test_what_is_no_message_of_ours_is_content(text):
    """Unknown channels and recipients, and text without a header, stay as they are."""
    found = run(parser_of("harmony+harmony", FUNCTIONS), list(text))
    assert (found.content, found.reasoning, found.calls) == (text, "", [])
