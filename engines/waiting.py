"""Sequences without a lane, in the order they will be admitted.

Preempted sequences come first: they hold their clients' half-read answers. Then by priority, aged:
linear ageing never changes the order of two waiting requests, so the key is fixed on arrival,

    priority * ageing_steps + step of arrival,

and a heap serves. Equal keys go in order of arrival.
"""

import heapq

from engines.sequence import Sequence

_Entry = tuple[bool, int, int, int, Sequence]


class WaitingLine:
    """A priority queue of sequences (each the leader of its group). O(log n) in and out."""

    def __init__(self, ageing_steps: int) -> None:
        self._ageing_steps = ageing_steps
        self._heap: list[_Entry] = []
        self.tokens = 0  # known tokens of all that wait: what admission control looks at

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, sequence: Sequence) -> None:
        """Queue a new or preempted sequence; its log must be up to date."""
        key = sequence.request.priority * self._ageing_steps + sequence.step
        entry = (not sequence.admitted, key, sequence.arrival, sequence.choice, sequence)
        heapq.heappush(self._heap, entry)
        self.tokens += len(sequence.log)

    def head(self) -> Sequence | None:
        """The next to be admitted."""
        return self._heap[0][-1] if self._heap else None

    def pop(self) -> Sequence:
        """Take the head out."""
        sequence = heapq.heappop(self._heap)[-1]
        self.tokens -= len(sequence.log)
        return sequence

    def remove(self, sequence: Sequence) -> None:
        """Take an aborted sequence out, if it is here.

        O(n), but n is bounded by admission and aborts in the line are rare.
        """
        rest = [entry for entry in self._heap if entry[-1] is not sequence]
        if len(rest) < len(self._heap):
            heapq.heapify(rest)
            self._heap = rest
            self.tokens -= len(sequence.log)
