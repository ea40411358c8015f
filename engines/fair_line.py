"""A line that several tenants share: by rank, who was served least, then who came first. Pure.

    rank      the class of priority, less one for each `ageing` of waiting, but never better than
              the best class in the line
    served    what its tenant has been (engines.fairness)
    key       priority * ageing + time of arrival; then the order of arrival

Within a tenant the key alone decides: linear ageing never changes the order of two that wait, so a
heap serves. The rank is a step function of the key, so the heap's top has its tenant's best rank.
Between tenants ageing makes equal and no more. Were it to go on, the oldest would win in the end,
and under overload the oldest is always of whoever sent most (docs/adr/0012).
"""

import heapq
from collections import Counter
from collections.abc import Iterator
from typing import Generic, TypeVar

from engines.fairness import Service

_T = TypeVar("_T")
_Order = tuple[int, int]


class FairLine(Generic[_T]):
    """O(log n) in and out; O(tenants) to look at the head."""

    def __init__(self, ageing: float, service: Service) -> None:
        self._ageing = ageing
        self._service = service
        self._queues: dict[int, list[tuple[float, _Order, int, _T]]] = {}  # by account; none empty
        self._classes: Counter[int] = Counter()

    def __len__(self) -> int:
        return self._classes.total()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __iter__(self) -> Iterator[_T]:
        return (entry[-1] for queue in self._queues.values() for entry in queue)

    def push(self, item: _T, account: int, priority: int, now: float, order: _Order) -> None:
        """Put an item that came `now` at the end of its class; `order` settles equal times."""
        queue = self._queues.setdefault(account, [])
        heapq.heappush(queue, (priority * self._ageing + now, order, priority, item))
        self._classes[priority] += 1

    def head(self, now: float) -> _T | None:
        """Whose turn it is."""
        if not self._queues:
            return None
        if len(self._queues) == 1:
            (queue,) = self._queues.values()
            return queue[0][-1]
        if len(self._classes) == 1:  # as nearly always: all have one rank
            return self._least_served()
        best = min(self._classes)

        def turn(account: int) -> tuple[float, float, float, _Order]:
            key, order, _, _ = self._queues[account][0]
            return (self._rank(key, now, best), self._service.of(account), key, order)

        return self._queues[min(self._queues, key=turn)][0][-1]

    def take(self, account: int) -> None:
        """Take out the first of a tenant, whose turn has come."""
        queue = self._queues[account]
        _, _, priority, _ = heapq.heappop(queue)
        self._service.turn(account)
        self._forget(priority)
        if not queue:
            del self._queues[account]

    def remove(self, item: _T, account: int) -> bool:
        """Take an item out wherever it stands; whether it was here.

        O(n), but n is bounded by admission and aborts in the line are rare.
        """
        queue = self._queues.get(account, [])
        rest = [entry for entry in queue if entry[-1] is not item]
        for entry in queue:
            if entry[-1] is item:
                self._forget(entry[2])
        if rest:
            heapq.heapify(rest)
            self._queues[account] = rest
        else:
            self._queues.pop(account, None)
        return len(rest) < len(queue)

    def _least_served(self) -> _T:
        served = {account: self._service.of(account) for account in self._queues}
        least = min(served.values())
        equals = (self._queues[account][0] for account in served if served[account] == least)
        return min(equals, key=lambda entry: entry[:2])[-1]

    def _rank(self, key: float, now: float, best: int) -> float:
        """The class, less one for each whole `ageing` that it has waited."""
        if not self._ageing:
            return best
        return max(best, -((now - key) // self._ageing))

    def _forget(self, priority: int) -> None:
        self._classes[priority] -= 1
        if not self._classes[priority]:
            del self._classes[priority]
