"""Calls as Kimi K2 writes them: a section of calls, each with an id that holds the name.

    <|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": 1}
    <|tool_call_end|><|tool_calls_section_end|>

without the line end. The id is the client's id too: the template wants it back with the result.
"""

import re
from collections.abc import Callable, Sequence

from openai_compat.output import calls, lark, reading
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import OutputParser
from openai_compat.output.markers import Markers
from openai_compat.output.syntax import Function, LarkFragment

_BEGIN, _END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_CALL, _CALL_END = "<|tool_call_begin|>", "<|tool_call_end|>"
_ARGUMENT = "<|tool_call_argument_begin|>"
_OPENING = calls.after_lines(_BEGIN)
_AFTER_ID = Markers(_ARGUMENT)
_ID = re.compile(r"(?:functions\.)?([^:\s]+):[0-9]+")


class Kimi:
    """Kimi K2 and K2 Thinking."""

    name = "kimi"
    specials = (_BEGIN, _CALL, _ARGUMENT, _CALL_END, _END)
    id_length = 0

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return calls.parser(functions, _script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        begin, end, call, call_end, argument = (
            lark.marker(text, special) for text in (_BEGIN, _END, _CALL, _CALL_END, _ARGUMENT)
        )

        def head(name: str) -> str:
            return lark.joined(call, lark.quoted(f"functions.{name}:"), "/[0-9]{1,4}/", argument)

        rules = lark.json_calls(functions, head, call_end)
        frame = (begin, "", end)
        return lark.section(_BEGIN, rules, len(functions), frame=frame, parallel=parallel)


def _script(cursor: Cursor, writer: calls.Writer) -> Steps[None]:
    def section(_marker: str) -> Steps[bool]:
        called = False
        while True:
            yield from cursor.spaces()
            if called and (yield from reading.closing(cursor, _END)):
                cursor.drop()
                return True
            if not (yield from cursor.literal(_CALL)):
                return called
            found = yield from _call(cursor, writer)
            if found is not calls.Found.WHOLE:
                return called and found is calls.Found.NONE
            called = True
            yield from calls.closed(cursor, _CALL_END)
            cursor.keep()

    yield from calls.sections(cursor, _OPENING, section)


def _call(cursor: Cursor, writer: calls.Writer) -> Steps[calls.Found]:
    call_id, stop = yield from reading.name(cursor, _AFTER_ID, calls.MAX_NAME)
    call_id = call_id.strip()
    named = _ID.fullmatch(call_id)
    if not stop or not named or not writer.begin(named[1], call_id):
        return calls.Found.NONE
    yield from cursor.spaces()
    if not (yield from reading.json_value(cursor, writer.arguments)):
        return calls.Found.BROKEN
    writer.end()
    return calls.Found.WHOLE
