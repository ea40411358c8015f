"""The exact prefix index: which block holds these tokens after that history. No hash, no collision.

A sealed block is found under (parent, tokens), where parent is the *serial* of the block before it,
or the namespace for a first block, or both behind a turn (naming.py). Serials are never reused, so
an entry can not be reached through a parent that was evicted and whose block now holds something
else.
"""

from collections.abc import Iterator
from dataclasses import dataclass

# Serial of the block before, or the namespace; or that serial and the namespace turned into.
Parent = int | bytes | tuple[int, bytes]
Key = tuple[Parent, bytes]


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is known of a findable block."""

    serial: int
    key: Key


class PrefixIndex:
    """Maps content to block ids and back. One entry per sealed block."""

    def __init__(self) -> None:
        self._blocks: dict[Key, int] = {}
        self._sealed: dict[int, Sealed] = {}
        self._next_serial = 0

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def added(self) -> int:
        """Entries that were ever made."""
        return self._next_serial

    def __contains__(self, block: int) -> bool:
        return block in self._sealed

    def __iter__(self) -> Iterator[tuple[int, Sealed]]:
        """All entries, parents before children: a child is always sealed later."""
        return iter(sorted(self._sealed.items(), key=lambda entry: entry[1].serial))

    def find(self, parent: Parent, tokens: bytes) -> int | None:
        """The block holding `tokens` after `parent`, if one is sealed."""
        return self._blocks.get((parent, tokens))

    def serial(self, block: int) -> int:
        """The serial of a sealed block. KeyError for any other."""
        return self._sealed[block].serial

    def add(self, block: int, parent: Parent, tokens: bytes) -> Sealed:
        """Make a block findable. The caller has checked that the content is not there yet."""
        sealed = Sealed(self._next_serial, (parent, tokens))
        self._next_serial += 1
        self._blocks[sealed.key] = block
        self._sealed[block] = sealed
        return sealed

    def discard(self, block: int) -> Sealed | None:
        """Forget a block; None if it was not sealed."""
        sealed = self._sealed.pop(block, None)
        if sealed is not None:
            del self._blocks[sealed.key]
        return sealed
