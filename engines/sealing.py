"""Makes the blocks of running sequences findable as they fill up. Pure."""

from engines.lanes import Lanes
from engines.tables import IntpArray
from kvcache.pool import BlockPool


class Sealer:
    """Knows from the lanes which blocks are full, and tells the pool what they hold."""

    def __init__(self, lanes: Lanes, pool: BlockPool) -> None:
        self._lanes = lanes
        self._tables = lanes.tables
        self._pool = pool

    def seal(self, advanced: IntpArray) -> None:
        """Seal what filled up, on one lane by any number of tokens, or on several by one each."""
        sealed = self._tables.sealed[advanced]
        full = self._lanes.computed[advanced] // self._tables.block_size
        more = full > sealed
        if len(advanced) > 1:
            self._seal_one_each(advanced[more])
        elif more.any():
            self.seal_blocks(int(advanced[0]), int(sealed[0]), int(full[0]))

    def seal_blocks(self, lane: int, first: int, end: int) -> None:
        """Seal the blocks `first` to `end` of a lane, all before them being sealed already."""
        for index in range(first, end):
            self._seal_block(lane, index)
        self._tables.sealed[lane] = end

    def _seal_one_each(self, filled: IntpArray) -> None:
        index = self._tables.sealed[filled]
        for lane, place in zip(filled.tolist(), index.tolist(), strict=True):
            self._seal_block(lane, place)
        self._tables.sealed[filled] = index + 1

    def _seal_block(self, lane: int, index: int) -> None:
        """The table then holds the block that already had the same content, if there was one."""
        row, size = self._tables.entries[lane], self._tables.block_size
        before = row.item(index - 1)  # anything, where there is none
        above = self._lanes.occupant(lane).above(index, before)
        tokens = self._lanes.tokens[lane, index * size : (index + 1) * size].tobytes()
        block = row.item(index)
        held = self._pool.seal(block, above, tokens)
        if held != block:
            row[index] = held
