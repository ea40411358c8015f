"""The exact prefix index: which block holds these tokens after that history. No hash, no collision.

A sealed block is found under (parent, tokens), where parent is the *serial* of the block before it,
or the namespace for a first block, or both behind a turn (naming.py). Serials are never reused, so
an entry can not be reached through a parent that was evicted and whose block now holds something
else.
"""

from collections.abc import Iterator
from typing import NamedTuple

# Serial of the block before, or the namespace; or that serial and the namespace turned into.
Parent = int | bytes | tuple[int, bytes]
Key = tuple[Parent, bytes]
_NONE = -1  # the serial of a block that is not sealed


class Sealed(NamedTuple):
    """What is known of a findable block."""

    serial: int
    key: Key


class PrefixIndex:
    """Maps content to block ids and back. One entry per sealed block.

    Entries are plain tuples of plain values, which the garbage collector leaves alone.
    """

    def __init__(self, num_blocks: int) -> None:
        self._blocks: dict[Key, int] = {}
        self._keys: list[Key | None] = [None] * num_blocks  # by block, as are the serials
        self._serials = [_NONE] * num_blocks
        self._next_serial = 0

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def added(self) -> int:
        """Entries that were ever made."""
        return self._next_serial

    def __contains__(self, block: int) -> bool:
        return self._serials[block] != _NONE

    def __iter__(self) -> Iterator[tuple[int, Sealed]]:
        """All entries, parents before children: a child is always sealed later."""
        by_age = sorted(self._blocks.values(), key=self._serials.__getitem__)
        return ((block, self.sealed(block)) for block in by_age)

    def find(self, parent: Parent, tokens: bytes) -> int | None:
        """The block holding `tokens` after `parent`, if one is sealed."""
        return self._blocks.get((parent, tokens))

    def serial(self, block: int) -> int:
        """The serial of a sealed block. KeyError for any other."""
        serial = self._serials[block]
        if serial == _NONE:
            raise KeyError(block)
        return serial

    def sealed(self, block: int) -> Sealed:
        """What is known of a sealed block. KeyError for any other."""
        key = self._keys[block]
        if key is None:
            raise KeyError(block)
        return Sealed(self._serials[block], key)

    def add(self, block: int, parent: Parent, tokens: bytes) -> int:
        """Make a block findable, unless another with this content is: returns which one is."""
        key = (parent, tokens)
        found = self._blocks.setdefault(key, block)
        if found == block:
            self._keys[block] = key
            self._serials[block] = self._next_serial
            self._next_serial += 1
        return found

    def discard(self, block: int) -> Sealed | None:
        """Forget a block; None if it was not sealed."""
        key = self._keys[block]
        if key is None:
            return None
        del self._blocks[key]
        sealed = Sealed(self._serials[block], key)
        self._keys[block], self._serials[block] = None, _NONE
        return sealed
