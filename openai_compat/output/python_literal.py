"""A Python literal turned into JSON text while it is read.

Strings, numbers, True, False, None, lists and dicts with string keys; JSON's own words too. No
tuples, sets, string prefixes or sums of strings.
"""

import re
import sys
from collections.abc import Callable

from openai_compat.output import typed
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.json_scan import MAX_DEPTH
from openai_compat.output.markers import Markers

Sink = Callable[[str], object]

_WORD = re.compile(r"[A-Za-z0-9_.+-]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_MAX_WORD = 400
_WORDS = {"True": "true", "False": "false", "None": "null"} | {
    word: word for word in ("true", "false", "null")
}
_STRING_END = {quote: Markers(quote, "\\") for quote in "\"'"}
_ESCAPES = {
    "\n": "",  # the line goes on
    "\\": "\\",
    "'": "'",
    '"': '"',
} | dict(zip("ntrbfav", "\n\t\r\b\f\a\v", strict=True))
_DIGITS = {"x": 2, "u": 4, "U": 8}
_HEX = re.compile(r"[0-9a-fA-F]+")
_OCTAL = re.compile(r"[0-7]+")
_CLOSES = {"[": "]", "{": "}"}


def value(cursor: Cursor, sink: Sink) -> Steps[bool]:
    """Reads one literal, of which blanks before it are no part; False where there is none."""
    containers: list[str] = []
    while True:
        opened = yield from cursor.literal("[", "{")
        if opened:
            if len(containers) == MAX_DEPTH:
                return False
            containers.append(opened)
            sink(opened)
            yield from cursor.spaces()
            if not (yield from cursor.literal(_CLOSES[opened])):
                if not (yield from _key(cursor, sink, opened)):
                    return False
                continue
            sink(_CLOSES[containers.pop()])
        elif not (yield from _scalar(cursor, sink)):
            return False
        whole = yield from _after(cursor, sink, containers)
        if whole is not None:
            return whole


def _after(cursor: Cursor, sink: Sink, containers: list[str]) -> Steps[bool | None]:
    """After a value: whether that was all, or None where another value comes next."""
    while containers:
        opened = containers[-1]
        yield from cursor.spaces()
        separator = yield from cursor.literal(",", _CLOSES[opened])
        if separator == ",":
            yield from cursor.spaces()
            if not (yield from cursor.literal(_CLOSES[opened])):  # else that comma was the last
                if (yield from cursor.peek()):
                    sink(", ")
                return None if (yield from _key(cursor, sink, opened)) else False
        elif not separator:
            return False
        sink(_CLOSES[containers.pop()])
    return True


def _key(cursor: Cursor, sink: Sink, opened: str) -> Steps[bool]:
    """What goes before an item: in a dict, its key."""
    if opened == "[":
        return True
    quote = yield from cursor.literal('"', "'")
    if not quote or not (yield from _string(cursor, sink, quote)):
        return False
    yield from cursor.spaces()
    if not (yield from cursor.literal(":")):
        return False
    sink(": ")
    yield from cursor.spaces()
    return True


def _scalar(cursor: Cursor, sink: Sink) -> Steps[bool]:
    quote = yield from cursor.literal('"', "'")
    if quote:
        return (yield from _string(cursor, sink, quote))
    word = yield from cursor.run(_WORD, _MAX_WORD)
    if word in _WORDS:
        sink(_WORDS[word])
    elif _NUMBER.fullmatch(word):
        sink(word)
    else:
        return False
    return True


def _string(cursor: Cursor, sink: Sink, quote: str) -> Steps[bool]:
    def inside(piece: str) -> None:
        if piece:
            sink(typed.escaped(piece))

    sink('"')
    while True:
        stop = yield from cursor.until(_STRING_END[quote], inside)
        if stop == quote:
            sink('"')
            return True
        escape = (yield from _escape(cursor)) if stop else None
        if escape is None:
            return False
        if escape:
            sink(escape)


def _escape(cursor: Cursor) -> Steps[str | None]:
    """What stands for an escape in JSON, after its backslash; None where it is not whole."""
    letter = yield from cursor.peek()
    if letter in "01234567" and letter:
        return typed.escaped(chr(int((yield from cursor.run(_OCTAL, 3)), 8)))
    cursor.take(cursor.at + 1)
    if letter in _ESCAPES:
        return typed.escaped(_ESCAPES[letter])
    if letter not in _DIGITS:
        return typed.escaped("\\" + letter) if letter not in ("", "N") else None
    digits = yield from cursor.run(_HEX, _DIGITS[letter])
    if len(digits) < _DIGITS[letter] or int(digits, 16) > sys.maxunicode:
        return None
    # Halves of a pair stay as they are: JSON puts them together.
    return "\\u" + digits if letter == "u" else typed.escaped(chr(int(digits, 16)))
