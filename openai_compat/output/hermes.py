"""Calls as Hermes and Qwen models write them: a JSON object between `<tool_call>` tags.

<tool_call>
{"name": "f", "arguments": {"a": 1}}
</tool_call>
"""

from collections.abc import Callable, Sequence

from openai_compat.output import calls, lark
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import OutputParser
from openai_compat.output.syntax import Function, LarkFragment

_BEGIN, _END = "<tool_call>", "</tool_call>"
_OPENING = calls.after_lines(_BEGIN)
_ARGUMENTS = frozenset({"arguments", "parameters"})


class Hermes:
    """`<tool_call>` with JSON; also Qwen 2.5 and 3, Granite 4 and other models of that template."""

    name = "hermes"
    specials = (_BEGIN, _END)
    id_length = 0

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return calls.parser(functions, _script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        begin, end = lark.marker(_BEGIN, special), lark.marker(_END, special)

        def head(name: str) -> str:
            return lark.joined(begin, lark.quoted(f'\n{{"name": "{name}", "arguments": '))

        rules = lark.json_calls(functions, head, lark.joined('"}\\n"', end))
        frame = ("", lark.quoted("\n"), "")
        return lark.section(_BEGIN, rules, len(functions), frame=frame, parallel=parallel)


def _script(cursor: Cursor, writer: calls.Writer) -> Steps[None]:
    def section(_marker: str) -> Steps[bool]:
        yield from cursor.spaces()
        found = yield from calls.json_call(cursor, writer, _ARGUMENTS, extras=None)
        if found is calls.Found.WHOLE:
            yield from calls.closed(cursor, _END)
        return found is calls.Found.WHOLE

    yield from calls.sections(cursor, _OPENING, section)
