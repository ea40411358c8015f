"""Calls as Qwen 3 Coder writes them: function and parameters as tags.

    <tool_call>
    <function=f>
    <parameter=a>
    1
    </parameter>
    </function>
    </tool_call>

One line end on either side of a value belongs to the tags. The models leave out `<tool_call>` now
and then, so `<function=` opens a call too.
"""

from collections.abc import Callable, Sequence

from openai_compat.output import calls, lark, lark_members, reading
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import OutputParser
from openai_compat.output.markers import Markers
from openai_compat.output.syntax import Function, LarkFragment
from openai_compat.output.tagged import Arguments

_BEGIN, _END = "<tool_call>", "</tool_call>"
_FUNCTION, _FUNCTION_END = "<function=", "</function>"
_PARAMETER, _PARAMETER_END = "<parameter=", "</parameter>"
_OPENING = calls.after_lines(_BEGIN, _FUNCTION)
_AFTER_NAME = Markers(">")
_AFTER_VALUE = Markers("\n" + _PARAMETER_END, _PARAMETER_END)


class Xml:
    """Qwen 3 Coder, and other models of its template."""

    name = "xml"
    specials = (_BEGIN, _END)
    id_length = 0

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return calls.parser(functions, _script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        begin, end = lark.marker(_BEGIN, special), lark.marker(_END, special)
        tags = lark_members.Tags(
            head=lambda name: lark.joined(lark.quoted(_PARAMETER), name, lark.quoted(">\n")),
            any_key="/[^<>\\n]{1,64}/",
            closing=_PARAMETER_END,
            end=lark.quoted("\n" + _PARAMETER_END),
            after=lark.quoted("\n"),
            special=False,
        )
        rules = []
        for at, function in enumerate(functions):
            opening = lark.joined(begin, lark.quoted(f"\n{_FUNCTION}{function.name}>\n"))
            closing = lark.joined(lark.quoted(f"{_FUNCTION_END}\n"), end)
            members, more = lark_members.tagged(self.name, function, f"call_{at}", tags)
            rules += [f"call_{at}: " + lark.joined(opening, members, closing), *more]
        frame = ("", lark.quoted("\n"), "")
        return lark.section(_BEGIN, rules, len(functions), frame=frame, parallel=parallel)


def _script(cursor: Cursor, writer: calls.Writer) -> Steps[None]:
    def section(marker: str) -> Steps[bool]:
        if marker == _BEGIN:
            yield from cursor.spaces()
            if not (yield from cursor.literal(_FUNCTION)):
                return False
        name, stop = yield from reading.name(cursor, _AFTER_NAME, calls.MAX_NAME)
        name = name.strip()
        if not stop or not writer.begin(name):
            return False
        arguments = Arguments(cursor, writer, writer.types(name))
        while True:
            yield from cursor.spaces()
            stop = yield from cursor.literal(_PARAMETER, _FUNCTION_END)
            if not stop:
                return False
            if stop == _FUNCTION_END:
                break
            if not (yield from _member(cursor, arguments)):
                return False
        arguments.end()
        yield from calls.closed(cursor, _END)
        return True

    yield from calls.sections(cursor, _OPENING, section)


def _member(cursor: Cursor, arguments: Arguments) -> Steps[bool]:
    key, stop = yield from reading.name(cursor, _AFTER_NAME, calls.MAX_NAME)
    if not stop:
        return False
    yield from cursor.literal("\n")
    return (yield from arguments.value(key.strip(), _AFTER_VALUE))
