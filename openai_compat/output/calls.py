"""What the call scripts share: writing a call's deltas, the way between calls, JSON bodies."""

import json
from collections.abc import Callable, Sequence
from enum import Enum, auto

from openai_compat.output import reading
from openai_compat.output.cursor import Cursor, ScriptedParser, Steps
from openai_compat.output.delta import CallArguments, CallBegin, CallEnd, OutputParser
from openai_compat.output.markers import Markers
from openai_compat.output.schema_types import SchemaTypes
from openai_compat.output.syntax import Function, PlainText

MAX_NAME = 256
"""Longer names, keys and ids are none; without a bound they would be held back for ever."""

_QUOTE = Markers('\\"', "\\\\", '"')


class Found(Enum):
    """What came of reading a call."""

    WHOLE = auto()
    BROKEN = auto()
    """It began, and then the text went another way: what is unread is content."""
    NONE = auto()
    """Nothing was given; what was kept is content."""


class Writer:
    """Gives the deltas of calls, one after the other."""

    __slots__ = ("_cursor", "_functions", "_index", "_types")

    def __init__(self, cursor: Cursor, functions: Sequence[Function]) -> None:
        self._cursor = cursor
        self._index = -1
        self._functions = {each.name: each for each in functions}
        self._types: dict[str, SchemaTypes] = {}

    def begin(self, name: str, call_id: str = "") -> bool:
        """From here on it is a call; False, and nothing given, for a function we do not have."""
        if name not in self._functions:
            return False
        self._index += 1
        self._cursor.drop()
        self._cursor.out.append(CallBegin(self._index, name, call_id))
        return True

    def arguments(self, text: str) -> None:
        self._cursor.out.append(CallArguments(self._index, text))

    def types(self, name: str) -> SchemaTypes:
        """The types of a function's parameters."""
        if name not in self._types:
            self._types[name] = SchemaTypes(self._functions[name].parameters)
        return self._types[name]

    def end(self) -> None:
        self._cursor.out.append(CallEnd(self._index))
        self._cursor.keep()


def parser(
    functions: Sequence[Function], script: Callable[[Cursor, Writer], Steps[None]]
) -> OutputParser:
    """A parser that runs a script of calls; without functions there is nothing to look for."""
    if not functions:
        return PlainText()

    def run(cursor: Cursor) -> Steps[None]:
        yield from script(cursor, Writer(cursor, functions))

    return ScriptedParser(run)


def sections(
    cursor: Cursor,
    opening: Markers,
    section: Callable[[str], Steps[bool]],
    *,
    at_start: tuple[str, ...] = (),
) -> Steps[None]:
    """Prose with sections of calls in it.

    A section begins by a marker, of which it is told, and tells whether it had a call. What it
    leaves kept is content. `at_start` are texts that open a section where no other text is before.
    Blanks between two sections, and after the last, belong to neither.
    """
    markers = tuple(dict.fromkeys(text.lstrip("\n") for text in opening.texts))
    cursor.keep()
    yield from cursor.spaces()
    marker = yield from cursor.literal(*at_start, *markers)
    while True:
        if not marker:
            cursor.restore()
            marker = yield from reading.prose(cursor, opening)
            if not marker:
                return
        called = yield from section(marker.lstrip("\n"))
        marker = ""
        if called:
            if not cursor.keeps_blanks():
                cursor.restore()
            cursor.keep()
            yield from cursor.spaces()
            if not (yield from cursor.peek()):
                cursor.drop()
                return
            marker = yield from cursor.literal(*markers)


def closed(cursor: Cursor, marker: str) -> Steps[None]:
    """The marker that ends a call; if it does not come, what does is content."""
    cursor.keep()
    yield from cursor.spaces()
    if (yield from reading.closing(cursor, marker)):
        cursor.drop()


def json_text(cursor: Cursor) -> Steps[str | None]:
    """A short JSON string, decoded; None where the text is no such string."""
    pieces: list[str] = []
    if not (yield from cursor.literal('"')):
        return None
    left = MAX_NAME
    while True:
        before = len(pieces)
        stop = yield from cursor.until(_QUOTE, pieces.append, left)
        left -= sum(map(len, pieces[before:])) + len(stop)
        if not stop or left < 0:
            return None
        pieces.append(stop)
        if stop == '"':
            break
    try:
        decoded = json.loads('"' + "".join(pieces))
    except ValueError:
        return None
    return decoded if isinstance(decoded, str) else None


def json_call(
    cursor: Cursor,
    writer: Writer,
    arguments: frozenset[str],
    *,
    extras: frozenset[str] | None,
    opened: bool = False,
) -> Steps[Found]:
    """Reads `{"name": ..., "arguments": ...}`, perhaps with the brace read already.

    The call begins with its name and ends with its arguments, whatever members follow. `extras`
    are the other keys that there may be; None allows any.
    """
    body = _Body(cursor, writer, arguments, extras)
    brace = opened or (yield from cursor.literal("{"))
    whole = brace and (yield from body.members())
    if not body.begun:
        return Found.NONE
    if whole:
        body.close()
        cursor.drop()
    return Found.WHOLE if body.ended else Found.BROKEN


class _Body:
    """The members of one call object."""

    __slots__ = ("_allowed", "_arguments", "_cursor", "_early", "_writer", "begun", "ended")

    def __init__(
        self,
        cursor: Cursor,
        writer: Writer,
        arguments: frozenset[str],
        extras: frozenset[str] | None,
    ) -> None:
        self._cursor = cursor
        self._writer = writer
        self._arguments = arguments
        self._allowed = extras
        self._early: list[str] | None = None
        """Arguments that came before the name."""
        self.begun = False
        self.ended = False

    def members(self) -> Steps[bool]:
        """Whether the object was read to its end."""
        cursor = self._cursor
        while True:
            yield from cursor.spaces()
            key = yield from json_text(cursor)
            yield from cursor.spaces()
            if key is None or not (yield from cursor.literal(":")):
                return False
            yield from cursor.spaces()
            if not (yield from self._member(key)):
                return False
            yield from cursor.spaces()
            separator = yield from cursor.literal(",", "}")
            if separator != ",":
                return separator == "}"

    def _member(self, key: str) -> Steps[bool]:
        if key == "name" and not self.begun:
            return (yield from self._name())
        if key in self._arguments and not self.ended and self._early is None:
            return (yield from self._value())
        known = key == "name" or key in self._arguments or self._allowed is None
        if not known and key not in (self._allowed or ()):
            return False
        return (yield from reading.json_value(self._cursor, _nowhere))

    def _name(self) -> Steps[bool]:
        name = yield from json_text(self._cursor)
        if name is None or not self._writer.begin(name):
            return False
        self.begun = True
        if self._early is not None:
            self._writer.arguments("".join(self._early))
            self._end()
        return True

    def _value(self) -> Steps[bool]:
        if not self.begun:
            self._early = []
            return (yield from reading.json_value(self._cursor, self._early.append))
        whole = yield from reading.json_value(self._cursor, self._writer.arguments)
        if whole:
            self._end()
        return whole

    def _end(self) -> None:
        self._writer.end()
        self.ended = True

    def close(self) -> None:
        """A call without arguments is one with none."""
        if not self.ended:
            self._writer.arguments("{}")
            self._end()


def _nowhere(_text: str) -> None:
    """Consumed only."""


def after_lines(*markers: str) -> Markers:
    """Markers, with the line ends that models write before them: these are not content."""
    return Markers(*(lines + text for lines in ("\n\n", "\n", "") for text in markers))
