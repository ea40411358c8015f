"""Models with syntaxes of calls and reasoning, and what a grammar takes of a text."""

from llguidance import LLMatcher

from engines.grammar.bounds import parser_limits
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.registry import reasoning_syntaxes, tool_syntaxes
from tests.support.grammars import TOKENIZER, vocabulary
from tests.support.tokenizers import served_model

VOCABULARY = vocabulary(TOKENIZER.get_vocab_size())


def writing(tools=None, reasoning=None, **changes):
    """A served model that writes in these syntaxes."""
    syntax = ModelSyntax(
        reasoning=reasoning and reasoning_syntaxes()[reasoning],
        tools=tools and tool_syntaxes()[tools],
    )
    return served_model(syntax=syntax, **changes)


def takes(source, text):
    """Whether the text is a whole answer by the grammar. A grammar that is none raises."""
    matcher = LLMatcher(VOCABULARY, source, log_level=0, limits=parser_limits())
    if matcher.is_error():
        raise ValueError(matcher.get_error())
    tokens = TOKENIZER.encode(text, add_special_tokens=False).ids
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def function(name="f", *, strict=None, **properties):
    """A tool of a chat request; all its properties are required."""
    told = {
        "name": name,
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        },
    }
    return {"type": "function", "function": told if strict is None else {**told, "strict": strict}}


def hermes(name, arguments):
    """A call as Hermes models write it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
