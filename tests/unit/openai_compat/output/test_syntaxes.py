"""What each syntax finds in the texts its models write, however these are cut."""

import json

import pytest

from openai_compat.output.registry import tool_syntaxes
from openai_compat.output.syntax import Function
from tests.support.outputs import OUTPUTS, joined, parser_of, run

ROWS = [pytest.param(*row, id=f"{at}-{row[0]}") for at, row in enumerate(OUTPUTS)]


@pytest.mark.parametrize(("name", "text", "content", "reasoning", "calls"), ROWS)
def test_an_output_is_taken_apart(name, text, content, reasoning, calls):
    """Content, reasoning and calls are those that the model meant."""
    found = run(parser_of(name), [text])
    assert (found.content, found.reasoning) == (content, reasoning)
    assert [tuple(call) for call in found.calls] == [(*call, True) for call in calls]
    for call in found.calls:
        json.loads(call[2])


@pytest.mark.parametrize(("name", "text", "content", "reasoning", "calls"), ROWS)
def test_every_cut_gives_the_same(name, text, content, reasoning, calls):
    """Cut anywhere in two, or everywhere, an output has the same parts in the same order."""
    whole = run(parser_of(name), [text])
    assert run(parser_of(name), list(text)) == whole
    for cut in range(len(text) + 1):
        assert run(parser_of(name), [text[:cut], text[cut:]]) == whole


@pytest.mark.parametrize(("name", "text", "content", "reasoning", "calls"), ROWS)
def test_a_call_that_breaks_off_does_not_end(name, text, content, reasoning, calls):
    """Of a shortened output the whole calls are whole, and at most one more has begun."""
    for cut in range(len(text)):
        found = run(parser_of(name), [text[:cut]])
        whole = [call for call in found.calls if call[3]]
        assert [tuple(call) for call in whole] == [(*call, True) for call in calls[: len(whole)]]
        assert found.calls[: len(whole)] == whole
        for name_, id_, arguments, _ in found.calls[len(whole) :]:
            assert (name_, id_) == calls[len(whole)][:2]
            assert calls[len(whole)][2].startswith(arguments)


@pytest.mark.parametrize(("name", "text", "content", "reasoning", "calls"), ROWS)
def test_arguments_stream(name, text, content, reasoning, calls):
    """A call's name is known long before its arguments are: it is given at once."""
    parser, seen = parser_of(name), []
    for letter in text:
        seen.extend(parser.feed(letter))
    early = joined(seen)
    assert [call[0] for call in early.calls] == [call[0] for call in calls]


@pytest.mark.parametrize("functions", [(), (Function("other", {}),)], ids=["none", "others"])
@pytest.mark.parametrize(("name", "text", "content", "reasoning", "calls"), ROWS)
def test_calls_to_functions_we_do_not_have_are_content(
    name, text, content, reasoning, calls, functions
):
    """Such a call stays in the text, markers and all, and nothing of it is lost."""
    found = run(parser_of(name, functions), list(text))
    assert not found.calls
    if name in tool_syntaxes():
        assert found.content == text
