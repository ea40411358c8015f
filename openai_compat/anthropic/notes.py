"""Names that nobody asked about, wherever in a request they stood; they are ignored and listed."""

import re
from collections.abc import Container

from openai_compat.fields import Fields

_PLACE = re.compile(r"\[\d+\]")
_MAX_NAMES = 32


class Ignored:
    """Collects names without their places: `messages.content.foo`, once."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, None] = {}

    def note(self, fields: Fields, known: Container[str]) -> None:
        """Take what an object has besides its known fields."""
        for name in fields.unknown(known):
            if len(self._names) < _MAX_NAMES:
                self._names[_PLACE.sub("", name)] = None

    @property
    def names(self) -> tuple[str, ...]:
        """As the client spelled them, in the order they came."""
        return tuple(self._names)
