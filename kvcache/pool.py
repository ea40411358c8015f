"""Who holds which KV block, which can be taken, and which can be reused by content.

A block's life:

    free, empty --take--> held, writable --seal--> held, sealed (immutable, findable)
        ^                    |                        |        ^
        |                 release                  release   share (a prefix hit)
        |                    v                        v        |
        +---------------- free, empty          free, cached ---+
        +------------------evict (oldest first)-------+

Free blocks without content are taken first; cached ones go in least-recently-released order. A
table is released from its tail, so a child is always older in that order than its parent, and the
prefix tree is eaten from the leaves.

Everything is O(1) per block and, when nobody listens to events, allocates only the index key.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from kvcache.events import BlockEvent, BlockRemoved, BlockStored, Listener
from kvcache.freelist import FreeList
from kvcache.naming import BlockName, Turn, chain, root_name, turned
from kvcache.prefix import Parent, PrefixIndex, Sealed


class OutOfBlocks(Exception):  # noqa: N818 - a condition the scheduler handles, not a fault
    """Fewer blocks are free than were asked for; nothing was taken."""


class BlockPool:
    """Accounting for `num_blocks` KV blocks of `block_size` tokens. Holds no tensor."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._refs = [0] * num_blocks
        self._free = FreeList(num_blocks)
        self._index = PrefixIndex(num_blocks)
        self._names: dict[int, BlockName] = {}  # serial -> name; filled only for listeners
        self._listeners: tuple[Listener, ...] = ()

    @property
    def free(self) -> int:
        """Blocks that `take` can give: empty or cached, held by nobody."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Sealed blocks, held or not."""
        return len(self._index)

    @property
    def stored(self) -> int:
        """Blocks that were ever sealed; those that are not `cached` any more were evicted."""
        return self._index.added

    def refs(self, block: int) -> int:
        """How many tables hold a block."""
        return self._refs[block]

    def match(
        self, namespace: bytes, tokens: npt.NDArray[np.int32], turn: Turn | None = None
    ) -> list[int]:
        """The longest run of sealed blocks for the full blocks of `tokens`. Changes nothing."""
        size = self.block_size
        hit: list[int] = []
        parent: Parent = namespace
        for start in range(0, len(tokens) - size + 1, size):
            if turn is not None and len(hit) == turn.block:
                parent = (self._index.serial(hit[-1]), turn.namespace)
            block = self._index.find(parent, tokens[start : start + size].tobytes())
            if block is None:
                break
            hit.append(block)
            parent = self._index.serial(block)
        return hit

    def idle(self, blocks: Iterable[int]) -> int:
        """How many of these blocks are held by nobody: sharing them uses up as many free ones."""
        return sum(self._refs[block] == 0 for block in blocks)

    def share(self, blocks: Iterable[int]) -> None:
        """Hold blocks that are sealed, or held by another table already."""
        for block in blocks:
            if self._refs[block] == 0:
                self._free.remove(block)
            self._refs[block] += 1

    def take(self, count: int) -> list[int]:
        """Hold `count` writable blocks, evicting cached content where needed.

        Raises OutOfBlocks, having taken none, when fewer are free.
        """
        if count > len(self._free):
            raise OutOfBlocks(f"{count} blocks wanted, {len(self._free)} free")
        return [self._take_one() for _ in range(count)]

    def release(self, table: Sequence[int]) -> None:
        """Give back one hold on each block of a table, tail first."""
        for block in reversed(table):
            self._refs[block] -= 1
            if self._refs[block] == 0:
                if block in self._index:
                    self._free.push_back(block)
                else:
                    self._free.push_front(block)

    def seal(self, block: int, parent: Parent, tokens: bytes) -> int:
        """A full block becomes immutable and findable; returns the block to hold from now on.

        `parent` is the held block before it, or the namespace for a first block, or that block and
        the namespace that is turned into; `tokens` are its little-endian int32 ids. Where the same
        content is sealed already, that block is returned, the hold moves there and `block` is
        released: tables thus hold only blocks whose whole chain is findable, and one copy serves
        all.
        """
        found = self._index.add(block, self._above(parent), tokens)
        if found != block:
            self.share((found,))
            self.release((block,))
        elif self._listeners:
            self._tell(self._stored(self._index.sealed(block)))
        return found

    def _above(self, parent: Parent) -> Parent:
        """How the index knows what is before a block."""
        match parent:
            case int():
                return self._index.serial(parent)
            case bytes():
                return parent
            case block, namespace:
                return self._index.serial(block), namespace

    def clear(self) -> None:
        """Evict every cached block that nobody holds."""
        for block in self._free:
            self._evict(block)

    def subscribe(self, listener: Listener) -> None:
        """Tell `listener` of every sealed block now (parents first), then of each change."""
        if listener not in self._listeners:
            self._listeners += (listener,)
        for _, sealed in self._index:
            listener(self._stored(sealed))

    def _take_one(self) -> int:
        block = self._free.pop_front()
        self._evict(block)
        self._refs[block] = 1
        return block

    def _evict(self, block: int) -> None:
        sealed = self._index.discard(block)
        if sealed is not None and self._listeners:
            self._tell(BlockRemoved(self._names.pop(sealed.serial), block))

    def _tell(self, event: BlockEvent) -> None:
        for listener in self._listeners:
            listener(event)

    def _stored(self, sealed: Sealed) -> BlockStored:
        above, tokens = sealed.key
        parent = self._name_before(above)
        name = self._names[sealed.serial] = chain(parent, tokens)
        return BlockStored(name, parent, tokens)

    def _name_before(self, above: Parent) -> BlockName:
        match above:
            case bytes():
                return root_name(above)
            case int():
                return self._names[above]
            case serial, namespace:
                return turned(self._names[serial], namespace)
