"""Reading an extra: a JSON object whose members are all known, and of their kinds. Pure."""

import json
from collections.abc import Sequence

from engines.errors import InvalidRequest


class Members:
    """One object of an extra; `where` is how a refusal names it. Null is as good as missing."""

    def __init__(self, values: dict[str, object], where: str) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._where = where
        self._read: set[str] = set()

    @classmethod
    def of(cls, source: str, where: str) -> "Members":
        """The object that an extra is. Raises InvalidRequest where it is none."""
        try:
            values = json.loads(source)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise InvalidRequest(f"{where} must be a JSON object", param="extras")
        return cls(values, where)

    def wrong(self, name: str, wanted: str) -> InvalidRequest:
        """The refusal of a member."""
        return InvalidRequest(f"{name} of {self._where} must be {wanted}", param="extras")

    def has(self, name: str) -> bool:
        """Whether it is given."""
        return name in self._values

    def integer(self, name: str, high: int, *, low: int = 0) -> int | None:
        """A number within the bounds."""
        value = self._take(name)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(name, f"an integer from {low} to {high}")
        return value

    def needed(self, name: str, high: int) -> int:
        """The same of a member that must be there."""
        value = self.integer(name, high)
        if value is None:
            raise self.wrong(name, f"an integer from 0 to {high}")
        return value

    def integers(self, name: str, high: int, most: int) -> list[int] | None:
        """At most so many numbers."""
        value = self._take(name)
        if value is None:
            return None
        wanted = f"an array of at most {most} integers from 0 to {high}"
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(name, wanted)
        if not all(type(each) is int and 0 <= each <= high for each in value):
            raise self.wrong(name, wanted)
        return value

    def text(self, name: str) -> str | None:
        """A string."""
        value = self._take(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def texts(self, name: str, most: int) -> str | list[str] | None:
        """A string, or at most so many of them; as it came."""
        value = self._take(name)
        if value is None or isinstance(value, str):
            return value
        wanted = f"a string or an array of at most {most}"
        if not isinstance(value, list) or len(value) > most:
            raise self.wrong(name, wanted)
        if not all(isinstance(each, str) for each in value):
            raise self.wrong(name, wanted)
        return value

    def objects(self, name: str, most: int) -> Sequence["Members"]:
        """At most so many objects; none where it is missing."""
        value = self._take(name)
        listed = [] if value is None else value
        if not isinstance(listed, list) or len(listed) > most:
            raise self.wrong(name, f"an array of at most {most} objects")
        if not all(isinstance(each, dict) for each in listed):
            raise self.wrong(name, f"an array of at most {most} objects")
        return [Members(each, f"{name} of {self._where}") for each in listed]

    def end(self) -> None:
        """Raises InvalidRequest for members that nobody has asked for."""
        unknown = sorted(self._values.keys() - self._read)
        if unknown:
            raise InvalidRequest(f"{self._where} takes no {', '.join(unknown)}", param="extras")

    def _take(self, name: str) -> object:
        self._read.add(name)
        return self._values.get(name)
