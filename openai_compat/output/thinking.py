"""Reasoning between two markers, which comes before the answer."""

from dataclasses import dataclass

from openai_compat.output import reading
from openai_compat.output.calls import after_lines
from openai_compat.output.cursor import Cursor, ScriptedParser, Steps
from openai_compat.output.delta import OutputParser, Reasoning, Text


@dataclass(frozen=True, slots=True)
class Tags:
    """A pair of markers. Line ends next to either are part of neither reasoning nor content."""

    name: str
    begin: str
    end: str

    @property
    def specials(self) -> tuple[str, ...]:
        return (self.begin, self.end)

    def parser(self, *, open: bool) -> OutputParser:  # noqa: A002 - as in ReasoningSyntax
        opened = open

        def script(cursor: Cursor) -> Steps[None]:
            if opened:
                yield from _line_ends(cursor)
            cursor.keep()
            yield from cursor.spaces()
            begun = yield from cursor.literal(self.begin)
            if begun:
                cursor.drop()
                yield from _line_ends(cursor)
            if begun or opened:
                cursor.prose_kind = Reasoning
                cursor.restore()
                yield from reading.prose(cursor, after_lines(self.end), Reasoning)
                cursor.drop()
                yield from _line_ends(cursor)
            cursor.prose_kind = Text
            cursor.restore()
            yield from reading.rest(cursor)

        return ScriptedParser(script)


def _line_ends(cursor: Cursor) -> Steps[None]:
    while (yield from cursor.literal("\n")):
        pass


TAGS = (
    Tags("think", "<think>", "</think>"),
    Tags("mistral", "[THINK]", "[/THINK]"),
    Tags("kimi", "◁think▷", "◁/think▷"),
)
