"""Calls as Llama 3.2 and 4 write them when asked for Python: a list of calls, and nothing else.

    [f(a=1, b="x"), g()]

From the first character on, or between `<|python_start|>` and `<|python_end|>`, anywhere.
"""

import json
import re
from collections.abc import Callable, Sequence

from openai_compat.output import calls, lark, lark_members, python_literal, typed
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import OutputParser
from openai_compat.output.syntax import Function, LarkFragment

_START, _END = "<|python_start|>", "<|python_end|>"
_OPENING = calls.after_lines(_START)
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_KEYWORD = re.compile(r"[A-Za-z0-9_]+")


class Pythonic:
    """Llama 3.2 and 4 with a template that asks for Python calls; ToolACE."""

    name = "pythonic"
    specials = (_START, _END)
    id_length = 0

    def parser(self, functions: Sequence[Function]) -> OutputParser:
        return calls.parser(functions, _script)

    def calls(
        self, functions: Sequence[Function], *, parallel: bool, special: Callable[[str], bool]
    ) -> LarkFragment:
        del special  # no marker is needed
        rules = []
        for at, function in enumerate(functions):
            members, more = lark_members.keywords(self.name, function, f"call_{at}")
            opening = lark.quoted(f"{function.name}(")
            rules += [f"call_{at}: " + lark.joined(opening, members, '")"'), *more]
        frame = ('"["', '", "', '"]"')
        return lark.section("", rules, len(functions), frame=frame, parallel=parallel)


def _script(cursor: Cursor, writer: calls.Writer) -> Steps[None]:
    def section(marker: str) -> Steps[bool]:
        if marker == _START:
            yield from cursor.spaces()
            if not (yield from cursor.literal("[")):
                return False
        called = False
        while True:
            yield from cursor.spaces()
            found = yield from _call(cursor, writer)
            if found is not calls.Found.WHOLE:
                return called and found is calls.Found.NONE
            called = True
            yield from cursor.spaces()
            separator = yield from cursor.literal(",", "]")
            if separator == "]":
                cursor.drop()
                if marker == _START:
                    yield from calls.closed(cursor, _END)
            if separator != ",":
                return True

    yield from calls.sections(cursor, _OPENING, section, at_start=("[",))


def _call(cursor: Cursor, writer: calls.Writer) -> Steps[calls.Found]:
    name = yield from cursor.run(_NAME, calls.MAX_NAME)
    if not (yield from cursor.literal("(")) or not writer.begin(name):
        return calls.Found.NONE
    types = writer.types(name)
    before = "{"
    while True:
        yield from cursor.spaces()
        if (yield from cursor.literal(")")):
            break
        keyword = yield from cursor.run(_KEYWORD, calls.MAX_NAME)
        yield from cursor.spaces()
        if not keyword or not (yield from cursor.literal("=")):
            return calls.Found.BROKEN
        yield from cursor.spaces()
        writer.arguments(before + typed.quoted(keyword) + ": ")
        before = ", "
        if not (yield from _value(cursor, writer, types.of_property(keyword))):
            return calls.Found.BROKEN
        yield from cursor.spaces()
        separator = yield from cursor.literal(",", ")")
        if not separator:
            return calls.Found.BROKEN
        if separator == ")":
            break
    writer.arguments("{}" if before == "{" else "}")
    writer.end()
    return calls.Found.WHOLE


def _value(cursor: Cursor, writer: calls.Writer, allowed: frozenset[str]) -> Steps[bool]:
    """One argument. Llama 4's template quotes all of them, so a quoted number may be one."""
    if "string" in allowed or (yield from cursor.peek()) not in ('"', "'"):
        return (yield from python_literal.value(cursor, writer.arguments))
    pieces: list[str] = []
    if not (yield from python_literal.value(cursor, pieces.append)):
        return False
    writer.arguments(typed.json_of(json.loads("".join(pieces)), allowed))
    return True
