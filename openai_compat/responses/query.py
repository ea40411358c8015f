"""What the query strings of the stored responses ask for."""

from collections.abc import Sequence
from dataclasses import dataclass

from openai_compat.errors import RequestRejected
from openai_compat.fields import wrong
from openai_compat.responses.items import Item
from openai_compat.responses.schema import read_include
from openai_compat.sse import json_bytes

Query = Sequence[tuple[str, str]]

_MAX_LIMIT = 100
_DEFAULT_LIMIT = 20
_MAX_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How a stored response is fetched."""

    stream: bool
    after: int  # the last event that the client has; -1: none
    obfuscated: bool | None


@dataclass(frozen=True, slots=True)
class Page:
    """Which input items are listed."""

    limit: int
    newest_first: bool
    after: str | None

    def of(self, items: Sequence[Item]) -> bytes:
        """The page as JSON. Raises `RequestRejected` for an `after` that is none of the items."""
        ordered = list(reversed(items)) if self.newest_first else list(items)
        if self.after is not None:
            places = [place for place, item in enumerate(ordered) if item["id"] == self.after]
            if not places:
                raise RequestRejected("'after' is not the id of one of the items.", param="after")
            ordered = ordered[places[-1] + 1 :]
        data = ordered[: self.limit]
        return json_bytes(
            {
                "object": "list",
                "data": data,
                "first_id": data[0]["id"] if data else None,
                "last_id": data[-1]["id"] if data else None,
                "has_more": len(ordered) > len(data),
            }
        )


def read_retrieval(query: Query) -> Retrieval:
    """Raises `RequestRejected` naming the parameter at fault."""
    _check_include(query)
    stream = _flag(query, "stream") or False
    after = _last(query, "starting_after")
    if after is not None and not stream:
        raise RequestRejected("'starting_after' needs 'stream' to be true.", param="starting_after")
    return Retrieval(
        stream,
        -1 if after is None else _number(after, "starting_after", 0, 10**_MAX_DIGITS),
        _flag(query, "include_obfuscation"),
    )


def read_page(query: Query) -> Page:
    """Raises `RequestRejected` naming the parameter at fault."""
    _check_include(query)
    limit = _last(query, "limit")
    order = _last(query, "order") or "desc"
    if order not in ("asc", "desc"):
        raise wrong("order", "asc or desc", order)
    return Page(
        _DEFAULT_LIMIT if limit is None else _number(limit, "limit", 1, _MAX_LIMIT),
        order == "desc",
        _last(query, "after"),
    )


def _check_include(query: Query) -> None:
    """Log-probabilities are there where they were asked for at first; nothing else is known."""
    read_include([value for name, value in query if name in ("include", "include[]")], "include")


def _last(query: Query, name: str) -> str | None:
    values = [value for each, value in query if each == name]
    return values[-1] if values else None


def _flag(query: Query, name: str) -> bool | None:
    value = _last(query, name)
    if value is None:
        return None
    if value.lower() not in ("true", "false"):
        raise wrong(name, "true or false", value)
    return value.lower() == "true"


def _number(value: str, name: str, low: int, high: int) -> int:
    # isdecimal also takes other scripts' digits, and nothing bounds how many there are.
    digits = value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS
    if not digits or not low <= int(value) <= high:
        raise wrong(name, f"an integer from {low} to {high}", value)
    return int(value)
