"""Making a conversation fit by leaving out its oldest items: what `truncation: auto` asks for."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from openai_compat.errors import ContextLengthExceeded
from openai_compat.responses.items import Item
from openai_compat.responses.messages import by_model

T = TypeVar("T")


def fitted(items: Sequence[Item], lower: Callable[[int], T]) -> T:
    """The lowering of as many of the last items as fit. `lower` is given the first one's place.

    Cut is where a user speaks, which every template can begin with; where even the last such part
    is too long, at any place that tears no turn of the model and no call from its output. Raises
    `ContextLengthExceeded` when nothing fits. Renders about log2 of the places.
    """
    try:
        return lower(0)
    except ContextLengthExceeded as error:
        too_long = error
    for places in (_places(items, _is_user), _places(items, _whole)):
        found = _first_that_fits(places, lower)
        if found is not None:
            return found[0]
    raise too_long


def _first_that_fits(places: Sequence[int], lower: Callable[[int], T]) -> tuple[T] | None:
    """Fewer items never take more room, so the first place that fits is found by halving."""
    low, high = 0, len(places)
    best: tuple[T] | None = None
    while low < high:
        middle = (low + high) // 2
        try:
            best, high = (lower(places[middle]),), middle
        except ContextLengthExceeded:
            low = middle + 1
    return best


def _places(items: Sequence[Item], may_begin: Callable[[Sequence[Item], int], bool]) -> list[int]:
    return [place for place in range(1, len(items)) if may_begin(items, place)]


def _is_user(items: Sequence[Item], place: int) -> bool:
    return items[place].get("role") == "user" and _complete(items, place)


def _whole(items: Sequence[Item], place: int) -> bool:
    torn = by_model(items[place]) and by_model(items[place - 1])
    return not torn and _complete(items, place)


def _complete(items: Sequence[Item], place: int) -> bool:
    """Whether every output from here on has its call."""
    called = set()
    for item in items[place:]:
        if item["type"] == "function_call":
            called.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in called:
            return False
    return True
