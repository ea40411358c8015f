"""Calls as Mistral models write them, in the two forms their tokenizers know.

    [TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]
    [TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}

The second form, of tokenizer 11 and later, may have `[CALL_ID]` and an id before `[ARGS]`, and some
models leave `[ARGS]` out. The templates insist on ids of nine letters and digits; the models write
none in the first form.
"""

from collections.abc import Callable, Sequence

from openai_compat.output import calls, lark, reading
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import OutputParser
from openai_compat.output.markers import Markers
from openai_compat.output.syntax import Function, LarkFragment

_BEGIN, _ID, _ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_OPENING = calls.after_lines(_BEGIN)
_ARGUMENTS = frozenset({"arguments", "parameters"})
_AFTER_NAME = Markers(_ID, _ARGS, "{")
_AFTER_ID = Markers(_ARGS, "{")


class Mistral:
    """Mistral 7B v0.3, Nemo, Small, Large, Ministral, Magistral and Devstral."""

    name = "mistral"
    specials = (_BEGIN, _ID, _ARGS)
    id_length = 9

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return calls.parser(functions, _script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        begin = lark.marker(_BEGIN, special)
        if special(_ARGS):  # only tokenizers of the second form have it

            def head(name: str) -> str:
                return lark.joined(begin, lark.quoted(name), lark.marker(_ARGS, special))

            rules = lark.json_calls(functions, head, "")
            frame = ("", "", "")
        else:

            def head(name: str) -> str:
                return lark.quoted(f'{{"name": "{name}", "arguments": ')

            rules = lark.json_calls(functions, head, '"}"')
            frame = (lark.joined(begin, '" "?', '"["'), '", "', '"]"')
        return lark.section(_BEGIN, rules, len(functions), frame=frame, parallel=parallel)


def _script(cursor: Cursor, writer: calls.Writer) -> Steps[None]:
    def section(_marker: str) -> Steps[bool]:
        yield from cursor.spaces()
        if (yield from cursor.literal("[")):
            return (yield from _array(cursor, writer))
        return (yield from _named(cursor, writer))

    yield from calls.sections(cursor, _OPENING, section)


def _array(cursor: Cursor, writer: calls.Writer) -> Steps[bool]:
    """The first form, after its bracket."""
    called = False
    while True:
        yield from cursor.spaces()
        found = yield from calls.json_call(cursor, writer, _ARGUMENTS, extras=None)
        if found is calls.Found.NONE:
            return called
        if found is calls.Found.BROKEN or not cursor.keeps_blanks():
            return False
        called = True
        cursor.keep()
        yield from cursor.spaces()
        separator = yield from cursor.literal(",", "]")
        if separator == "]":
            cursor.drop()
        if separator != ",":
            return True


def _named(cursor: Cursor, writer: calls.Writer) -> Steps[bool]:
    """The second form, after its marker."""
    name, stop = yield from reading.name(cursor, _AFTER_NAME, calls.MAX_NAME)
    call_id = ""
    if stop == _ID:
        call_id, stop = yield from reading.name(cursor, _AFTER_ID, calls.MAX_NAME)
    if not stop or not writer.begin(name.strip(), call_id.strip()):
        return False
    yield from cursor.spaces()
    whole = yield from reading.json_value(
        cursor, writer.arguments, opened="{" if stop == "{" else ""
    )
    if whole:
        writer.end()
    return whole
