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
    whole = _whole(items)
    spoken = [place for place in whole if items[place].get("role") == "user"]
    for places in (spoken, whole):
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


def _whole(items: Sequence[Item]) -> list[int]:
    """The places where nothing is torn: every output from there on has its call, and a turn of the
    model that begins there begins there.
    """
    places: list[int] = []
    waiting: set[object] = set()  # outputs whose calls are further up
    for place in range(len(items) - 1, 0, -1):
        item = items[place]
        if item["type"] == "function_call_output":
            waiting.add(item["call_id"])
        elif item["type"] == "function_call":
            waiting.discard(item["call_id"])
        torn = by_model(item) and by_model(items[place - 1])
        if not waiting and not torn:
            places.append(place)
    return places[::-1]
