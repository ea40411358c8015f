"""Sequences without a lane, in the order they will be admitted.

Those preempted for memory come first: they hold their clients' half-read answers. They return by

    priority * ageing_steps + step of arrival,

whoever they are of; equal keys in order of arrival. All others stand in a fair line
(engines.fair_line), which within a tenant goes by the same key. That holds for those displaced for
another tenant, too: before it they would be back at once.
"""

import heapq
from collections.abc import Iterator

from engines.fair_line import FairLine
from engines.fairness import Service
from engines.sequence import Sequence


class WaitingLine:
    """A queue of sequences, each the leader of its group. O(log n) in and out."""

    def __init__(self, ageing_steps: int, service: Service) -> None:
        self._ageing_steps = ageing_steps
        self._preempted: list[tuple[int, int, int, Sequence]] = []
        self._fair: FairLine[Sequence] = FairLine(ageing_steps, service)
        self.tokens = 0  # known tokens of all that wait: what admission control looks at

    def __len__(self) -> int:
        return len(self._preempted) + len(self._fair)

    def __bool__(self) -> bool:
        return bool(self._preempted or self._fair)

    def __iter__(self) -> Iterator[Sequence]:
        yield from (entry[-1] for entry in self._preempted)
        yield from self._fair

    def push(self, sequence: Sequence) -> None:
        """Queue a new or preempted sequence; its log must be up to date."""
        priority, order = sequence.request.priority, (sequence.arrival, sequence.choice)
        if sequence.admitted and not sequence.displaced:
            key = priority * self._ageing_steps + sequence.step
            heapq.heappush(self._preempted, (key, *order, sequence))
        else:
            self._fair.push(sequence, sequence.account, priority, sequence.step, order)
        self.tokens += len(sequence.log)

    def head(self, step: int) -> Sequence | None:
        """The next to be admitted, at this step."""
        if self._preempted:
            return self._preempted[0][-1]
        return self._fair.head(step)

    def take(self, head: Sequence) -> None:
        """Take the head out."""
        if self._preempted:
            heapq.heappop(self._preempted)
        else:
            self._fair.take(head.account)
            head.displaced = False
        self.tokens -= len(head.log)

    def remove(self, sequence: Sequence) -> None:
        """Take an aborted sequence out, if it is here. O(n); aborts in the line are rare."""
        if not self._fair.remove(sequence, sequence.account):
            rest = [entry for entry in self._preempted if entry[-1] is not sequence]
            if len(rest) == len(self._preempted):
                return
            heapq.heapify(rest)
            self._preempted = rest
        self.tokens -= len(sequence.log)
