"""Reading typed fields out of a JSON object; every refusal names the field, the limit and the kind
of what was given, and never repeats the input.
"""

from collections.abc import Collection, Container, ItemsView, Mapping
from itertools import islice

from openai_compat.errors import RequestRejected

_MAX_REPORTED = 32


class Fields:
    """One JSON object of the request, read field by field. `path` is what its fields hang under.

    A missing field and an explicit null are the same, as in OpenAI's API.
    """

    __slots__ = ("_values", "path")

    def __init__(self, values: Mapping[str, object], path: str = "") -> None:
        self._values = values
        self.path = path

    def param(self, name: str) -> str:
        """The name under which a refusal speaks of the field."""
        return f"{self.path}.{name}" if self.path else name

    def raw(self, name: str) -> object:
        """The value as it came; None when missing."""
        return self._values.get(name)

    def number(
        self, name: str, low: float, high: float, *, above_low: bool = False
    ) -> float | None:
        """A finite number within the bounds; `above_low` leaves the lower one out."""
        value = self._values.get(name)
        if value is None:
            return None
        bounds = f"a number {'above' if above_low else 'from'} {low:g} to {high:g}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong(self.param(name), bounds, value)
        if not low <= value <= high or (above_low and value == low):
            raise wrong(self.param(name), bounds, value)
        return float(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        """An integer within the bounds. 1.0 is not one: JSON writers that mean 1 write 1."""
        value = self._values.get(name)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise wrong(self.param(name), f"an integer from {low} to {high}", value)
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean; `default` when missing."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise wrong(self.param(name), "true or false", value)
        return value

    def text(self, name: str, max_chars: int | None = None) -> str | None:
        """A string, of at most `max_chars` characters."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise wrong(self.param(name), "a string", value)
        if max_chars is not None and len(value) > max_chars:
            raise wrong(self.param(name), f"a string of at most {max_chars} characters", value)
        return value

    def one_of(self, name: str, words: Collection[str]) -> str | None:
        """One of a few known words."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or value not in words:
            raise wrong(self.param(name), "one of " + ", ".join(words), value)
        return value

    def items(self, name: str, max_items: int) -> list[object] | None:
        """An array of at most `max_items` values."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > max_items:
            raise wrong(self.param(name), f"an array of at most {max_items} items", value)
        return value

    def nested(self, name: str) -> "Fields | None":
        """A nested object."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise wrong(self.param(name), "an object", value)
        return Fields(value, self.param(name))

    def entries(self, name: str, max_entries: int) -> dict[str, object] | None:
        """A nested object used as a map, of at most `max_entries` entries."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict) or len(value) > max_entries:
            raise wrong(self.param(name), f"an object of at most {max_entries} entries", value)
        return value

    def values(self) -> ItemsView[str, object]:
        """All names and values as they came."""
        return self._values.items()

    def unknown(self, known: Container[str]) -> tuple[str, ...]:
        """The first names nobody asked about, as the client spelled them: not fit for a header."""
        names = (name for name in self._values if name not in known)
        return tuple(self.param(name) for name in islice(names, _MAX_REPORTED))


def wrong(param: str, wanted: str, value: object) -> RequestRejected:
    """The refusal of a value, described and not repeated."""
    return RequestRejected(
        f"Invalid value for '{param}': expected {wanted}, got {describe(value)}.", param=param
    )


def describe(value: object) -> str:
    """A short description of any JSON value: its kind, and its size or number."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        shown = repr(value)
        return shown if len(shown) <= 24 else f"a number of {len(shown)} digits"
    if isinstance(value, str):
        return f"a string of {len(value)} characters"
    if isinstance(value, list):
        return f"an array of {len(value)} items"
    return "an object"
