"""Arguments between tags, one by one, given as a growing JSON object."""

from openai_compat.output import reading, typed
from openai_compat.output.calls import Writer
from openai_compat.output.cursor import Cursor, Steps
from openai_compat.output.markers import Markers
from openai_compat.output.schema_types import SchemaTypes


class Arguments:
    """The object of one call, member by member."""

    __slots__ = ("_cursor", "_first", "_types", "_writer")

    def __init__(self, cursor: Cursor, writer: Writer, types: SchemaTypes) -> None:
        self._cursor = cursor
        self._writer = writer
        self._types = types
        self._first = True

    def value(self, name: str, closing: Markers) -> Steps[bool]:
        """Reads the value of a member up to its closing tag; False if that never comes."""
        self._writer.arguments(self._head(name))
        allowed = self._types.of_property(name)
        if allowed == typed.TEXT_ONLY:
            return (yield from self._text(closing))
        pieces: list[str] = []
        if not typed.is_text(allowed):
            # A closing tag inside of a JSON string is part of it.
            pieces.append((yield from self._cursor.spaces()))
            if (yield from self._cursor.peek()) in tuple('{["'):
                yield from reading.json_value(self._cursor, pieces.append)
        stop = yield from self._cursor.until(closing, pieces.append)
        if not stop:
            return False
        text = "".join(pieces)
        if "\n" + stop in closing.texts:  # where only blanks came, its line end was read with them
            text = text.removesuffix("\n")
        self._writer.arguments(typed.json_of(text, allowed))
        return True

    def end(self) -> None:
        """The object, and the call, are whole."""
        self._writer.arguments("{}" if self._first else "}")
        self._writer.end()

    def _head(self, name: str) -> str:
        before = "{" if self._first else ", "
        self._first = False
        return before + typed.quoted(name) + ": "

    def _text(self, closing: Markers) -> Steps[bool]:
        def sink(piece: str) -> None:
            if piece:
                self._writer.arguments(typed.escaped(piece))

        self._writer.arguments('"')
        if not (yield from self._cursor.until(closing, sink)):
            return False
        self._writer.arguments('"')
        return True
