"""Which syntaxes a model is served with: named, found, or none."""

import pytest

from engines.bundled import penstock_tiny
from engines.errors import ModelRejected
from engines.text.template import ChatTemplate
from gateway.model_directory import read_text_side
from gateway.model_syntax import AUTO, NONE, choose_syntax
from tests.support.tokenizers import CHATML

PLAIN = ChatTemplate(CHATML, {})
THINKING = ChatTemplate(CHATML + "{# <think></think> #}", {})


def names(syntax):
    return (syntax.tools and syntax.tools.name, syntax.reasoning and syntax.reasoning.name)


@pytest.mark.parametrize(
    ("template", "tools", "reasoning", "chosen"),
    [
        (None, AUTO, AUTO, (None, None)),
        (PLAIN, AUTO, AUTO, (None, None)),
        (THINKING, AUTO, AUTO, (None, "think")),
        (THINKING, "hermes", NONE, ("hermes", None)),
        (None, "mistral", "mistral", ("mistral", "mistral")),
        (PLAIN, "harmony", "harmony", ("harmony", "harmony")),
    ],
)
def test_a_name_wins_over_what_the_template_shows(template, tools, reasoning, chosen):
    """`auto` looks, `none` is none."""
    assert names(choose_syntax(template, tools=tools, reasoning=reasoning)) == chosen


def test_the_bundled_model_calls_without_a_flag():
    """Its template shows how."""
    template = read_text_side(penstock_tiny()).template
    assert names(choose_syntax(template, tools=AUTO, reasoning=AUTO)) == ("hermes", None)
    assert names(choose_syntax(template, tools=NONE, reasoning=AUTO)) == (None, None)


def test_harmony_is_both_or_neither():
    """Its calls cannot be read without its channels; the other flag is named."""
    with pytest.raises(ModelRejected, match="--reasoning-parser harmony"):
        choose_syntax(PLAIN, tools="harmony", reasoning=NONE)
