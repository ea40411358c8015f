"""Calls as Llama 3 models write them: bare JSON objects, from the first character on.

    {"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}

Or after `<|python_tag|>`, or between `<|python_start|>` and `<|python_end|>` (Llama 4), anywhere.
"""

from collections.abc import Callable, Sequence

from openai_compat.output import calls, lark
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import OutputParser
from openai_compat.output.syntax import Function, LarkFragment

_TAG, _START, _END = "<|python_tag|>", "<|python_start|>", "<|python_end|>"
_OPENING = calls.after_lines(_TAG, _START)
_ARGUMENTS = frozenset({"parameters", "arguments"})
# Without a marker, a JSON answer must not be held back for long: any other key and it is content.
_EXTRAS = frozenset({"type", "id"})


class Llama3Json:
    """Llama 3.1, 3.2, 3.3, and 4 with a template that asks for JSON."""

    name = "llama3_json"
    specials = (_TAG, _START, _END)
    id_length = 0

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return calls.parser(functions, _script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        del special  # no marker is needed

        def head(name: str) -> str:
            return lark.quoted(f'{{"name": "{name}", "parameters": ')

        rules = lark.json_calls(functions, head, '"}"')
        frame = ("", lark.quoted("; "), "")
        return lark.section("", rules, len(functions), frame=frame, parallel=parallel)


def _script(cursor: Cursor, writer: calls.Writer) -> Steps[None]:
    def section(marker: str) -> Steps[bool]:
        yield from cursor.spaces()
        opened = marker == "{"
        found = yield from calls.json_call(
            cursor, writer, _ARGUMENTS, extras=_EXTRAS, opened=opened
        )
        called = found is calls.Found.WHOLE
        while found is calls.Found.WHOLE and cursor.keeps_blanks():
            cursor.keep()
            yield from cursor.spaces()
            if not (yield from cursor.literal(";")):
                break
            yield from cursor.spaces()
            if not (yield from cursor.peek()):
                cursor.drop()
                break
            found = yield from calls.json_call(cursor, writer, _ARGUMENTS, extras=_EXTRAS)
        if called and marker == _START:
            yield from calls.closed(cursor, _END)
        return called and found is not calls.Found.BROKEN

    yield from calls.sections(cursor, _OPENING, section, at_start=("{",))
