# ruff: noqa: RUF001, RUF002 - the markers are written with full-width bars
"""Calls as DeepSeek models write them, in two forms of one set of markers.

V3 and R1 give a type, the name and a fenced block; between calls stands a line end:

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f
    ```json
    {"a": 1}
    ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

V3.1 gives the name and the object, and nothing between calls, nor the line end shown here:

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>
    <｜tool▁calls▁end｜>

One parser reads both; the grammar holds a model to the form it was taught.
"""

from collections.abc import Callable, Sequence

from openai_compat.output import calls, lark, reading
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import OutputParser
from openai_compat.output.markers import Markers
from openai_compat.output.syntax import Function, LarkFragment

_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEP = "<｜tool▁sep｜>"
_FENCE = "```"
_OPENING = calls.after_lines(_BEGIN)
_TO_SEP = Markers(_SEP)
_LINE = Markers("\n")


class DeepSeek:
    """`fenced` is the form of V3 and R1."""

    specials = (_BEGIN, _CALL, _SEP, _CALL_END, _END)
    id_length = 0

    def __init__(self, name: str, *, fenced: bool) -> None:
        self.name = name
        self._fenced = fenced

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return calls.parser(functions, _script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        begin, end, call, call_end, sep = (
            lark.marker(text, special) for text in (_BEGIN, _END, _CALL, _CALL_END, _SEP)
        )

        def head(name: str) -> str:
            if not self._fenced:
                return lark.joined(call, lark.quoted(name), sep)
            opening = lark.quoted(f"{name}\n{_FENCE}json\n")
            return lark.joined(call, lark.quoted("function"), sep, opening)

        fence = lark.quoted("\n" + _FENCE) if self._fenced else ""
        rules = lark.json_calls(functions, head, lark.joined(fence, call_end))
        frame = (begin, lark.quoted("\n") if self._fenced else "", end)
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
            name = yield from _head(cursor)
            if name is None or not writer.begin(name):
                return called
            if not (yield from reading.json_value(cursor, writer.arguments)):
                return False
            writer.end()
            called = True
            yield from _tail(cursor)

    yield from calls.sections(cursor, _OPENING, section)


def _head(cursor: Cursor) -> Steps[str | None]:
    """The name, read up to the object."""
    name, stop = yield from reading.name(cursor, _TO_SEP, calls.MAX_NAME)
    yield from cursor.spaces()
    if not stop:
        return None
    if (yield from cursor.peek()) != "{":  # so that was the type, and the name is still to come
        name, stop = yield from reading.name(cursor, _LINE, calls.MAX_NAME)
        yield from cursor.spaces()
        if not stop or not (yield from cursor.literal(_FENCE + "json")):
            return None
        yield from cursor.spaces()
    return name.strip()


def _tail(cursor: Cursor) -> Steps[None]:
    """What ends a call; models leave some of it out."""
    yield from cursor.spaces()
    if (yield from reading.closing(cursor, _FENCE)):
        yield from cursor.spaces()
        cursor.drop()
    if (yield from reading.closing(cursor, _CALL_END)):
        cursor.drop()
    cursor.keep()
