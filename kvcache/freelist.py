"""Blocks nobody holds, in the order they will be taken: an intrusive doubly linked list of ids.

    sentinel <-> front (taken next) <-> ... <-> back (most recently released) <-> sentinel

Intrusive, because a prefix hit takes a block out of the middle: that must cost O(1) and allocate
nothing. The sentinel (id = number of blocks) removes every branch for the empty list and the ends.
"""

from collections.abc import Iterator


class FreeList:
    """All ids below `size`, linked in order. A block is in the list at most once."""

    def __init__(self, size: int) -> None:
        self._sentinel = size
        self._next: list[int] = [*range(1, size + 1), 0]
        self._prev: list[int] = [size, *range(size)]
        self._count = size

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        """Ids from front to back; for audits, not for the hot path."""
        block = self._next[self._sentinel]
        while block != self._sentinel:
            yield block
            block = self._next[block]

    def remove(self, block: int) -> None:
        """Unlink a block that is in the list."""
        before, after = self._prev[block], self._next[block]
        self._next[before] = after
        self._prev[after] = before
        self._count -= 1

    def pop_front(self) -> int:
        """Unlink the id that is to be taken next. The list must not be empty."""
        front = self._next[self._sentinel]
        after = self._next[front]
        self._next[self._sentinel] = after
        self._prev[after] = self._sentinel
        self._count -= 1
        return front

    def push_back(self, block: int) -> None:
        """Link a block as the last to be taken."""
        self._link(block, self._prev[self._sentinel], self._sentinel)

    def push_front(self, block: int) -> None:
        """Link a block as the next to be taken."""
        self._link(block, self._sentinel, self._next[self._sentinel])

    def _link(self, block: int, before: int, after: int) -> None:
        self._next[before] = self._prev[after] = block
        self._prev[block] = before
        self._next[block] = after
        self._count += 1
