"""The syntaxes by name, and which of them a chat template shows.

Detection looks for texts that only one family's templates hold. Where two families' texts are
found, or none, nothing is said: the operator can name the syntax by flag.
"""

from collections.abc import Mapping
from typing import NamedTuple

from openai_compat.output.deepseek import DeepSeek
from openai_compat.output.glm import Glm
from openai_compat.output.harmony import Harmony
from openai_compat.output.hermes import Hermes
from openai_compat.output.kimi import Kimi
from openai_compat.output.llama3_json import Llama3Json
from openai_compat.output.mistral import Mistral
from openai_compat.output.pythonic import Pythonic
from openai_compat.output.syntax import ReasoningSyntax, ToolSyntax
from openai_compat.output.thinking import TAGS
from openai_compat.output.xml import Xml

_HARMONY = Harmony()  # one object: `compose` knows both sides by it
_TOOLS: tuple[ToolSyntax, ...] = (
    Hermes(),
    Llama3Json(),
    Pythonic(),
    Mistral(),
    DeepSeek("deepseek_v3", fenced=True),
    DeepSeek("deepseek_v31", fenced=False),
    Glm(),
    Kimi(),
    Xml(),
    _HARMONY,
)


class _Sign(NamedTuple):
    """A template that holds all of `holds` and nothing of `lacks` is of this syntax."""

    syntax: str
    holds: tuple[str, ...]
    lacks: tuple[str, ...] = ()


_TOOL_SIGNS = (
    _Sign("harmony", ("<|start|>", "<|channel|>", "<|message|>")),
    _Sign("deepseek_v3", ("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>", "```json")),  # noqa: RUF001
    _Sign("deepseek_v31", ("<｜tool▁calls▁begin｜>", "<｜tool▁sep｜>"), ("```json",)),  # noqa: RUF001
    _Sign("kimi", ("<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>")),
    _Sign("glm", ("<tool_call>", "<arg_key>", "<arg_value>")),
    _Sign("xml", ("<tool_call>", "<function=", "<parameter=")),
    _Sign("mistral", ("[TOOL_CALLS]",)),
    _Sign("pythonic", ("[func_name1(",)),
    _Sign(
        "llama3_json",
        ("ipython", '"parameters": ', '{"name": '),
        ("[func_name1(", "<tool_call>"),
    ),
    _Sign("hermes", ("<tool_call>", "</tool_call>", '"arguments"'), ("<function=", "<arg_key>")),
)
_REASONING_SIGNS = (
    _Sign("harmony", ("<|start|>", "<|channel|>", "<|message|>")),
    _Sign("mistral", ("[THINK]", "[/THINK]")),
    _Sign("kimi", ("◁/think▷",)),
    _Sign("think", ("</think>",)),
)


def tool_syntaxes() -> Mapping[str, ToolSyntax]:
    """Every syntax of tool calls."""
    return {syntax.name: syntax for syntax in _TOOLS}


def reasoning_syntaxes() -> Mapping[str, ReasoningSyntax]:
    """Every syntax of reasoning."""
    return {syntax.name: syntax for syntax in (*TAGS, _HARMONY)}


def detect(template_source: str) -> tuple[str | None, str | None]:
    """The tool and the reasoning syntax of a chat template; None where that is not certain."""
    # Templates hold JSON in Jinja strings, where its quotes may be escaped.
    source = template_source.replace('\\"', '"')
    return _only(_TOOL_SIGNS, source), _only(_REASONING_SIGNS, source)


def _only(signs: tuple[_Sign, ...], source: str) -> str | None:
    found = [
        sign.syntax
        for sign in signs
        if all(text in source for text in sign.holds)
        and not any(text in source for text in sign.lacks)
    ]
    return found[0] if len(found) == 1 else None
