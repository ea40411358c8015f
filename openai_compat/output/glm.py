"""Calls as GLM models write them: the name, then keys and values, between tags.

    <tool_call>f
    <arg_key>a</arg_key>
    <arg_value>1</arg_value>
    </tool_call>

GLM 4.7 writes no line ends between the tags. A value is a string as it is, anything else JSON.
"""

from collections.abc import Callable, Sequence

from openai_compat.output import calls, lark, lark_members, reading
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import OutputParser
from openai_compat.output.markers import Markers
from openai_compat.output.syntax import Function, LarkFragment
from openai_compat.output.tagged import Arguments

_BEGIN, _END = "<tool_call>", "</tool_call>"
_KEY, _KEY_END = "<arg_key>", "</arg_key>"
_VALUE, _VALUE_END = "<arg_value>", "</arg_value>"
_OPENING = calls.after_lines(_BEGIN)
_AFTER_NAME = Markers("\n", _KEY, _END)
_AFTER_KEY = Markers(_KEY_END)
_AFTER_VALUE = Markers(_VALUE_END)


class Glm:
    """GLM 4.5, 4.6 and 4.7."""

    name = "glm"
    specials = (_BEGIN, _END, _KEY, _KEY_END, _VALUE, _VALUE_END)
    id_length = 0

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return calls.parser(functions, _script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        begin, end, key, key_end, value = (
            lark.marker(text, special) for text in (_BEGIN, _END, _KEY, _KEY_END, _VALUE)
        )
        line = '"\\n"?'
        tags = lark_members.Tags(
            head=lambda name: lark.joined(key, name, key_end, line, value),
            any_key="/[^<>\\n]{1,64}/",
            closing=_VALUE_END,
            end=lark.marker(_VALUE_END, special),
            after=line,
            special=special(_VALUE_END),
        )
        rules = []
        for at, function in enumerate(functions):
            opening = lark.joined(begin, lark.quoted(function.name), line)
            members, more = lark_members.tagged(self.name, function, f"call_{at}", tags)
            rules += [f"call_{at}: " + lark.joined(opening, members, end), *more]
        frame = ("", line, "")
        return lark.section(_BEGIN, rules, len(functions), frame=frame, parallel=parallel)


def _script(cursor: Cursor, writer: calls.Writer) -> Steps[None]:
    def section(_marker: str) -> Steps[bool]:
        yield from cursor.spaces()
        name, stop = yield from reading.name(cursor, _AFTER_NAME, calls.MAX_NAME)
        name = name.strip()
        if not stop or not writer.begin(name):
            return False
        arguments = Arguments(cursor, writer, writer.types(name))
        while stop != _END:
            if stop == _KEY and not (yield from _member(cursor, arguments)):
                return False
            yield from cursor.spaces()
            stop = yield from cursor.literal(_KEY, _END)
            if not stop:
                return False
        arguments.end()
        return True

    yield from calls.sections(cursor, _OPENING, section)


def _member(cursor: Cursor, arguments: Arguments) -> Steps[bool]:
    key, stop = yield from reading.name(cursor, _AFTER_KEY, calls.MAX_NAME)
    yield from cursor.spaces()
    if not stop or not (yield from cursor.literal(_VALUE)):
        return False
    return (yield from arguments.value(key.strip(), _AFTER_VALUE))
