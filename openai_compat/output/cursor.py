"""Reading text that is not all there yet: scripts that wait for more, written as generators.

A script reads with the cursor's primitives and writes deltas. Wherever it needs text that has not
come it yields, and it goes on at the next feed; so it reads like a parser of a whole text, and its
decisions cannot depend on how the text was cut. It never goes back: every primitive consumes, or
leaves at most a marker's length unread, which keeps the work linear.

What a script consumes while it is not certain that it reads a call is kept, and is content in the
end if it was none.
"""

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

from openai_compat.output.delta import CallArguments, CallBegin, CallEnd, Delta, Reasoning, Text
from openai_compat.output.markers import Markers

T = TypeVar("T")
Steps = Generator[None, None, T]
Script = Callable[["Cursor"], Steps[None]]

_PIECES = (Text, Reasoning, CallArguments)
_PROSE: Mapping[type, type[Text | Reasoning]] = {Text: Text, Reasoning: Reasoning}
_BLANKS = re.compile(r"[ \t\n\r]+")


class Cursor:
    """The text not yet read, and the deltas not yet given."""

    __slots__ = ("_kept", "at", "ended", "out", "passing", "prose_kind", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self.out: list[Delta] = []
        self.passing: frozenset[str] | None = None
        """Set while a piece without any of these characters is plain prose as a whole."""
        self.prose_kind: type[Text | Reasoning] = Text
        self._kept: list[str] | None = None

    def give(self, text: str) -> None:
        """More of the prose."""
        if text:
            self.out.append(self.prose_kind(text))

    def keep(self) -> None:
        """From here on what is read may turn out to be content."""
        if self._kept is None:
            self._kept = []

    def drop(self) -> None:
        """What was kept was markup after all."""
        self._kept = None

    def restore(self) -> None:
        """What was kept is content."""
        kept, self._kept = self._kept, None
        if kept:
            self.give("".join(kept))

    def keeps_blanks(self) -> bool:
        """Whether nothing but blanks is kept."""
        return not self._kept or all(piece.isspace() for piece in self._kept)

    def take(self, end: int) -> str:
        """Consumes up to `end`, a place in the text at hand."""
        piece = self.text[self.at : end]
        self.at = end
        if self._kept is not None and piece:
            self._kept.append(piece)
        return piece

    def more(self) -> Steps[bool]:
        """Waits for more text; False if none will come."""
        unread = len(self.text) - self.at
        while len(self.text) - self.at == unread:
            if self.ended:
                return False
            yield
        return True

    def peek(self) -> Steps[str]:
        """The next character, or nothing at the end."""
        while self.at == len(self.text):
            if not (yield from self.more()):
                return ""
        return self.text[self.at]

    def run(self, pattern: re.Pattern[str], limit: int | None = None) -> Steps[str]:
        """Consumes characters as long as the pattern, of single ones, matches; up to a limit."""
        pieces: list[str] = []
        left = limit
        while True:
            stop = len(self.text) if left is None else min(len(self.text), self.at + left)
            found = pattern.match(self.text, self.at, stop)
            end = found.end() if found else self.at
            if left is not None:
                left -= end - self.at
            pieces.append(self.take(end))
            if end < len(self.text) or left == 0 or not (yield from self.more()):
                return "".join(pieces)

    def spaces(self) -> Steps[str]:
        """Consumes blanks."""
        return (yield from self.run(_BLANKS))

    def literal(self, *texts: str) -> Steps[str]:
        """Consumes the one of these texts that comes next, or nothing. None begins another."""
        while True:
            waiting = False
            for text in texts:
                if self.text.startswith(text, self.at):
                    self.take(self.at + len(text))
                    return text
                waiting = waiting or text.startswith(self.text[self.at : self.at + len(text)])
            if not waiting or not (yield from self.more()):
                return ""

    def until(
        self, markers: Markers, sink: Callable[[str], object], limit: int | None = None
    ) -> Steps[str]:
        """Feeds the sink up to the next marker, and consumes that. Nothing if there is none.

        With a limit it gives up after so many characters.
        """
        left = limit
        while True:
            found = markers.find(self.text, self.at, left)
            end = found.start() if found else len(self.text) - markers.held(self.text, self.at)
            if left is not None:
                if end - self.at > left:
                    sink(self.take(self.at + left))  # the same place however the text was cut
                    return ""
                left -= end - self.at
            sink(self.take(end))
            if found:
                return self.take(found.end())
            if not (yield from self.more()):
                self.take(len(self.text))  # the first of a marker that was cut off
                return ""


class ScriptedParser:
    """An `OutputParser` that runs a script."""

    __slots__ = ("_cursor", "_steps")

    def __init__(self, script: Script) -> None:
        self._cursor = Cursor()
        self._steps = script(self._cursor)
        self._resume()

    def feed(self, text: str) -> Sequence[Delta]:
        cursor = self._cursor
        if cursor.passing is not None and cursor.passing.isdisjoint(text):
            return (cursor.prose_kind(text),) if text else ()
        cursor.text = cursor.text[cursor.at :] + text
        cursor.at = 0
        return self._resume()

    def finish(self) -> Sequence[Delta]:
        self._cursor.ended = True
        return self._resume()

    def _resume(self) -> Sequence[Delta]:
        next(self._steps, None)
        out, self._cursor.out = self._cursor.out, []
        return out if len(out) < 2 else _merged(out)


def _merged(deltas: Sequence[Delta]) -> Sequence[Delta]:
    """Neighbours of one part as one delta: each becomes a frame on the wire."""
    out: list[Delta] = []
    for (kind, index), run in groupby(deltas, key=_part):
        if kind is CallBegin or kind is CallEnd:
            out.extend(run)
            continue
        text = "".join(each.text for each in run if isinstance(each, _PIECES))
        out.append(CallArguments(index, text) if kind is CallArguments else _PROSE[kind](text))
    return out


def _part(delta: Delta) -> tuple[type, int]:
    return type(delta), delta.index if isinstance(delta, CallArguments) else 0
