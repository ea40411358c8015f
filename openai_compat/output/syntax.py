"""What a syntax of tool calls or of reasoning offers, and how the two are put in line."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from openai_compat.output.delta import Delta, OutputParser, Text

# Of what looks like a token, only what is outside of strings: schemas hold what clients write.
_UNNAMED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|<(\[[A-Z_]+\])>')


@dataclass(frozen=True, slots=True)
class Function:
    """A tool as parsers and grammars need it; empty parameters stand for any object."""

    name: str
    parameters: Mapping[str, object]


class LarkFragment(NamedTuple):
    """A grammar of one calls section, to be put into a larger Lark grammar of llguidance."""

    start: str
    """An expression for the whole section: one call, or several."""
    rules: str
    """The rules it needs; their names begin with `call_`."""
    trigger: str
    """The text a section begins with; empty where calls have no marker of their own."""

    def numbered(self, token_id: Callable[[str], int]) -> "LarkFragment":
        """The same with every special token by its number that Lark cannot name.

        llguidance takes `<|call|>` by name, but a name that is not in angle brackets only by its
        number. Such a token is written `<[TOOL_CALLS]>` until its number is put in.
        """

        def number(found: re.Match[str]) -> str:
            return f"<[{token_id(found[1])}]>" if found[1] else found[0]

        start, rules = (_UNNAMED.sub(number, text) for text in (self.start, self.rules))
        return LarkFragment(start, rules, self.trigger)


class NotExpressible(ValueError):  # noqa: N818 - what is so, not what went wrong
    """A schema that a syntax cannot hold the model to. The client's fault; names the keyword."""

    def __init__(self, syntax: str, function: str, keyword: str) -> None:
        super().__init__(f"{syntax} calls cannot be held to {keyword!r} in these parameters")
        self.syntax = syntax
        self.function = function
        self.keyword = keyword


class ToolSyntax(Protocol):
    """How a family of models writes tool calls."""

    @property
    def name(self) -> str: ...

    @property
    def specials(self) -> tuple[str, ...]:
        """Markers that are special tokens in the models' tokenizers: they must be spelled out."""

    @property
    def id_length(self) -> int:
        """Letters and digits of a call id in these models' templates; 0 where any id will do."""

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        """Finds calls of these functions. Any other call is content, markers and all."""

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        """A grammar of one call, or of one or more, to these functions.

        `special` tells whether a marker is a special token of the tokenizer in use. Raises
        `NotExpressible`. There is at least one function.
        """


class ReasoningSyntax(Protocol):
    """How a family of models writes what it thinks before it answers."""

    @property
    def name(self) -> str: ...

    @property
    def specials(self) -> tuple[str, ...]:
        """As of a `ToolSyntax`."""

    @property
    def begin(self) -> str:
        """The marker before the reasoning."""

    @property
    def end(self) -> str:
        """The marker after it."""

    def parser(self, *, open: bool) -> OutputParser:  # noqa: A002 - the prompt left it open
        """Gives reasoning and text only. `open`: the prompt ended inside the reasoning part."""


@runtime_checkable
class JointSyntax(Protocol):
    """A syntax whose reasoning and calls cannot be told apart by two parsers in line."""

    def joint(self, functions: Sequence[Function], *, open: bool) -> OutputParser:  # noqa: A002
        """Gives reasoning, text and calls."""


class PlainText:
    """All text is content."""

    __slots__ = ()

    def feed(self, text: str) -> Sequence[Delta]:
        return (Text(text),) if text else ()

    def finish(self) -> Sequence[Delta]:
        return ()


class InLine:
    """The content that the first parser finds is read by the second."""

    __slots__ = ("_first", "_second")

    def __init__(self, first: OutputParser, second: OutputParser) -> None:
        self._first = first
        self._second = second

    def feed(self, text: str) -> Sequence[Delta]:
        return self._through(self._first.feed(text))

    def finish(self) -> Sequence[Delta]:
        return [*self._through(self._first.finish()), *self._second.finish()]

    def _through(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        if len(deltas) == 1 and type(deltas[0]) is Text:  # nearly every piece
            return self._second.feed(deltas[0].text)
        out: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, Text):
                out.extend(self._second.feed(delta.text))
            else:
                out.append(delta)
        return out


def _joint(syntax: object) -> JointSyntax | None:
    return syntax if isinstance(syntax, JointSyntax) else None


def compose(
    reasoning: ReasoningSyntax | None,
    tools: ToolSyntax | None,
    functions: Sequence[Function],
    *,
    open: bool,  # noqa: A002 - as in ReasoningSyntax
) -> OutputParser:
    """One parser for both; plain text where there is neither."""
    joint = _joint(tools)
    if joint is not None and (reasoning is None or _joint(reasoning) is joint):
        return joint.joint(functions, open=open and reasoning is not None)
    if reasoning is None:
        return PlainText() if tools is None else tools.parser(functions)
    first = reasoning.parser(open=open)
    return first if tools is None else InLine(first, tools.parser(functions))
