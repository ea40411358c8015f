"""Calls or an answer of a given form: which of them it is, the first characters tell.

Where the content has a form of its own, a marker in it (in a JSON string, say) begins no call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from openai_compat.conversation.answer_grammar import is_joint
from openai_compat.conversation.ask import Conversation
from openai_compat.output.delta import Delta, OutputParser
from openai_compat.output.model_syntax import ModelSyntax
from openai_compat.output.syntax import Function, LarkFragment, PlainText, ToolSyntax


def told_apart(syntax: ModelSyntax, conversation: Conversation) -> ModelSyntax:
    """The syntax of a turn: where calls stand beside a form, they begin at the start or not."""
    tools = syntax.tools
    if tools is None or is_joint(tools) or conversation.format is None:
        return syntax
    trigger = tools.calls([Function("f", {})], parallel=False, special=lambda _: False).trigger
    return replace(syntax, tools=_Leading(tools, trigger)) if trigger else syntax


@dataclass(frozen=True, slots=True)
class _Leading:
    """A syntax whose calls begin at the start of the content."""

    inner: ToolSyntax
    trigger: str

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def specials(self) -> tuple[str, ...]:
        return self.inner.specials

    @property
    def id_length(self) -> int:
        return self.inner.id_length

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return _Fork(self.inner.parser(functions), self.trigger)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        return self.inner.calls(functions, parallel=parallel, special=special)


class _Fork:
    """Holds text back until it is decided who reads it."""

    __slots__ = ("_calls", "_held", "_reader", "_trigger")

    def __init__(self, calls: OutputParser, trigger: str) -> None:
        self._calls = calls
        self._trigger = trigger
        self._held = ""
        self._reader: OutputParser | None = None

    def feed(self, text: str) -> Sequence[Delta]:
        if self._reader is not None:
            return self._reader.feed(text)
        self._held += text
        begun = self._held.lstrip()
        if self._trigger.startswith(begun) and begun != self._trigger:
            return ()
        return self._decided(self._calls if begun.startswith(self._trigger) else PlainText())

    def finish(self) -> Sequence[Delta]:
        before = self._decided(PlainText()) if self._reader is None else ()
        return [*before, *(self._reader.finish() if self._reader is not None else ())]

    def _decided(self, reader: OutputParser) -> Sequence[Delta]:
        self._reader, held, self._held = reader, self._held, ""
        return reader.feed(held)
