"""How far a JSON value reaches in a text that comes in pieces, and whether it is JSON at all.

A push-down automaton over characters; runs of plain string characters are taken at once. It is
strict (RFC 8259): what it accepts, every JSON reader accepts.
"""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar

MAX_DEPTH = 256
SPACE = " \t\n\r"

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_BLANK = re.compile(r"[ \t\n\r]+")
_LITERALS = {"t": "true", "f": "false", "n": "null"}
# Where a number may go from each state; the states in _COMPLETE may also end it.
_NUMBER = {
    "minus": {"0": "zero", "1-9": "int"},
    "zero": {".": "point", "e": "exp"},
    "int": {"0": "int", "1-9": "int", ".": "point", "e": "exp"},
    "point": {"0": "frac", "1-9": "frac"},
    "frac": {"0": "frac", "1-9": "frac", "e": "exp"},
    "exp": {"0": "digits", "1-9": "digits", "+": "sign", "-": "sign"},
    "sign": {"0": "digits", "1-9": "digits"},
    "digits": {"0": "digits", "1-9": "digits"},
}
_COMPLETE = frozenset({"zero", "int", "frac", "digits"})
_CLASS = {**dict.fromkeys("123456789", "1-9"), "0": "0", ".": ".", "+": "+", "-": "-"} | {
    "e": "e",
    "E": "e",
}


class JsonScanner:
    """Reads one value from its first character on; leading blanks are not part of it."""

    __slots__ = ("_expect", "_number", "_rest", "_stack", "done", "failed")

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._stack: list[str] = []  # "{" or "[" per open container
        self._expect = "value"
        self._rest = ""  # of a literal or an escape
        self._number = ""

    @property
    def in_string(self) -> bool:
        """Whether the text so far ends inside of a string."""
        return self._expect in {"string", "key", "escape", "key escape"}

    def scan(self, text: str, at: int) -> int:
        """The place up to which `text` belongs to the value, as far as `done` or `failed` allow."""
        steps, end = self._STEPS, len(text)
        while at < end and not self.done and not self.failed:
            at = steps[self._expect](self, text, at)
        return at

    def finish(self) -> bool:
        """Whether the value is whole, now that nothing more comes: only a number ends so."""
        if self._expect == "number" and self._number in _COMPLETE and not self._stack:
            self.done = True
        return self.done

    def _blank(self, text: str, at: int) -> int:
        blank = _BLANK.match(text, at)
        return blank.end() if blank else at

    def _value(self, text: str, at: int) -> int:
        if self._stack:
            at = self._blank(text, at)
            if at == len(text):
                return at
        letter = text[at]
        if letter == '"':
            self._expect = "string"
        elif letter in "{[":
            if len(self._stack) == MAX_DEPTH:
                return self._fail(at)
            self._stack.append(letter)
            self._expect = "first key" if letter == "{" else "first item"
        elif letter in _LITERALS:
            self._expect, self._rest = "literal", _LITERALS[letter][1:]
        elif letter in "-0123456789":
            self._expect = "number"
            self._number = {"-": "minus", "0": "zero"}.get(letter, "int")
        else:
            return self._fail(at)
        return at + 1

    def _first_item(self, text: str, at: int) -> int:
        at = self._blank(text, at)
        if at < len(text) and text[at] == "]":
            return self._close(at)
        if at < len(text):
            self._expect = "value"
        return at

    def _first_key(self, text: str, at: int) -> int:
        at = self._blank(text, at)
        if at < len(text) and text[at] == "}":
            return self._close(at)
        return self._next_key(text, at)

    def _next_key(self, text: str, at: int) -> int:
        at = self._blank(text, at)
        if at == len(text):
            return at
        if text[at] != '"':
            return self._fail(at)
        self._expect = "key"
        return at + 1

    def _colon(self, text: str, at: int) -> int:
        at = self._blank(text, at)
        if at == len(text):
            return at
        if text[at] != ":":
            return self._fail(at)
        self._expect = "value"
        return at + 1

    def _after(self, text: str, at: int) -> int:
        at = self._blank(text, at)
        if at == len(text):
            return at
        inside = self._stack[-1]
        if text[at] == ",":
            self._expect = "next key" if inside == "{" else "value"
            return at + 1
        if text[at] == ("}" if inside == "{" else "]"):
            return self._close(at)
        return self._fail(at)

    def _string(self, text: str, at: int) -> int:
        plain = _PLAIN.match(text, at)
        if plain:
            return plain.end()
        letter = text[at]
        key = self._expect == "key"
        if letter == '"':
            if key:
                self._expect = "colon"
            else:
                self._ended()
        elif letter == "\\":
            self._expect, self._rest = ("key escape" if key else "escape"), ""
        else:
            return self._fail(at)
        return at + 1

    def _escape(self, text: str, at: int) -> int:
        letter = text[at]
        if self._rest:  # hexadecimal digits still to come
            if letter not in "0123456789abcdefABCDEF":
                return self._fail(at)
            self._rest = self._rest[1:]
        elif letter == "u":
            self._rest = "xxxx"
        elif letter not in '"\\/bfnrt':
            return self._fail(at)
        if not self._rest:
            self._expect = "key" if self._expect == "key escape" else "string"
        return at + 1

    def _literal(self, text: str, at: int) -> int:
        if text[at] != self._rest[0]:
            return self._fail(at)
        self._rest = self._rest[1:]
        if not self._rest:
            self._ended()
        return at + 1

    def _digits(self, text: str, at: int) -> int:
        state = _NUMBER[self._number].get(_CLASS.get(text[at], ""))
        if state is not None:
            self._number = state
            return at + 1
        if self._number not in _COMPLETE:
            return self._fail(at)
        self._ended()
        return at

    def _close(self, at: int) -> int:
        self._stack.pop()
        self._ended()
        return at + 1

    def _ended(self) -> None:
        if self._stack:
            self._expect = "after"
        else:
            self.done = True

    def _fail(self, at: int) -> int:
        self.failed = True
        return at

    # What reads on, by what is expected next.
    _STEPS: ClassVar[Mapping[str, Callable[["JsonScanner", str, int], int]]] = {
        "value": _value,
        "first item": _first_item,
        "first key": _first_key,
        "next key": _next_key,
        "colon": _colon,
        "after": _after,
        "string": _string,
        "key": _string,
        "escape": _escape,
        "key escape": _escape,
        "literal": _literal,
        "number": _digits,
    }
