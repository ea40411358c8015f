"""What scripts read most: prose up to a marker, names, JSON values."""

from collections.abc import Callable

from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.delta import Reasoning, Text
from openai_compat.output.json_scan import JsonScanner
from openai_compat.output.markers import Markers


def closing(cursor: Cursor, text: str) -> Steps[bool]:
    """As `literal`, but an end of all text inside of it counts: the rest was cut off."""
    if (yield from cursor.literal(text)):
        return True
    if cursor.ended and text.startswith(cursor.text[cursor.at :]):
        cursor.take(len(cursor.text))
        return True
    return False


def name(cursor: Cursor, stops: Markers, limit: int) -> Steps[tuple[str, str]]:
    """A short text up to a marker, and that marker, which is empty if it was no such text."""
    pieces: list[str] = []
    stop = yield from cursor.until(stops, pieces.append, limit)
    return "".join(pieces), stop


def prose(cursor: Cursor, markers: Markers, kind: type[Text | Reasoning] = Text) -> Steps[str]:
    """Gives prose up to a marker, from which on all is kept. Nothing at the end of all text."""
    cursor.prose_kind = kind
    while True:
        found = markers.find(cursor.text, cursor.at)
        end = found.start() if found else len(cursor.text) - markers.held(cursor.text, cursor.at)
        cursor.give(cursor.take(end))
        if found:
            cursor.keep()
            return cursor.take(found.end())
        if cursor.ended:
            cursor.give(cursor.take(len(cursor.text)))
            return ""
        cursor.passing = markers.first if end == len(cursor.text) else None
        yield
        cursor.passing = None


def rest(cursor: Cursor, kind: type[Text | Reasoning] = Text) -> Steps[None]:
    """All that is left is prose."""
    cursor.prose_kind = kind
    while True:
        cursor.give(cursor.take(len(cursor.text)))
        if cursor.ended:
            return
        cursor.passing = frozenset()
        yield


def json_value(cursor: Cursor, sink: Callable[[str], object], *, opened: str = "") -> Steps[bool]:
    """Feeds the sink one JSON value; False where the text is none.

    `opened` is the first of it, if that was read already.
    """
    scanner = JsonScanner()
    if opened:
        sink(opened[: scanner.scan(opened, 0)])
    while True:
        piece = cursor.take(scanner.scan(cursor.text, cursor.at))
        if piece:
            sink(piece)
        if scanner.done:
            return True
        if scanner.failed:
            return False
        if not (yield from cursor.more()):
            return scanner.finish()
