"""Beside a form, calls begin at the start of the content or not at all."""

import pytest

from openai_compat.conversation.ask import AnswerFormat, Conversation, FormatKind
from openai_compat.conversation.leading_calls import told_apart
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes
from openai_compat.output.syntax import Function
from tests.support.answers import hermes
from tests.support.outputs import run

FORM = AnswerFormat(FormatKind.JSON_OBJECT, None, "response_format")
CALL = hermes("f", '{"a": 1}')
HERMES = ModelSyntax(tools=tool_syntaxes()["hermes"])
FUNCTIONS = [Function("f", {})]


def parsed(pieces, *, form=FORM):
    """What comes of the pieces."""
    syntax = told_apart(HERMES, Conversation((), format=form))
    return run(syntax.parser(FUNCTIONS, thinking=False), pieces)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("blank", ["", "\n", " \n "])
def test_calls_at_the_start_are_calls(size, blank):
    """However the text is cut, with or without blanks before."""
    text = blank + CALL
    found = parsed([text[at : at + size] for at in range(0, len(text), size)])
    assert [call[0] for call in found.calls] == ["f"]
    assert found.content == ""


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("text", ['{"a": "' + CALL.replace('"', "'") + '"}', "x" + CALL, "<tool"])
def test_calls_inside_of_content_are_content(size, text):
    """A marker in a JSON string begins nothing; nothing is lost."""
    found = parsed([text[at : at + size] for at in range(0, len(text), size)])
    assert found.calls == []
    assert found.content == text


def test_without_a_form_calls_may_come_anywhere():
    """The syntax is as it was."""
    assert told_apart(HERMES, Conversation(())) is HERMES
    found = parsed(["hello\n", CALL], form=None)
    assert (found.content, len(found.calls)) == ("hello", 1)


@pytest.mark.parametrize("name", ["harmony", "llama3_json"])
def test_syntaxes_that_tell_them_apart_are_left_alone(name):
    """By a channel of their own; or not at all, which lowering refuses."""
    reasoning = reasoning_syntaxes()["harmony"] if name == "harmony" else None
    syntax = ModelSyntax(reasoning=reasoning, tools=tool_syntaxes()[name])
    assert told_apart(syntax, Conversation((), format=FORM)) is syntax
