"""The block tables of the running sequences, as columns: one row of each array per lane. Pure.

entries[lane]   b0 b1 ... b(held-1)     blocks that hold the keys and values of its tokens
                |<- sealed ->|
"""

import numpy as np
import numpy.typing as npt

from engines.limits import Limits

IntpArray = npt.NDArray[np.intp]


class BlockTables:
    """Tables for `limits.max_running` lanes."""

    def __init__(self, limits: Limits) -> None:
        lanes = limits.max_running
        self.block_size = limits.block_size
        shape = (lanes, limits.blocks_per_sequence)
        self.entries: npt.NDArray[np.int32] = np.zeros(shape, np.int32)
        self.held: IntpArray = np.zeros(lanes, np.intp)
        self.sealed: IntpArray = np.zeros(lanes, np.intp)
        self.room: IntpArray = np.zeros(lanes, np.intp)  # tokens that its blocks take; 0: forked
        self.forked = np.zeros(lanes, np.bool_)  # its last block may be shared with a sibling
        self._shift: IntpArray = np.zeros(lanes, np.intp)  # slot less position, in its last block

    def clear(self, lane: int) -> None:
        """A lane begins without blocks."""
        self.held[lane] = self.sealed[lane] = self.room[lane] = 0
        self.forked[lane] = False

    def blocks(self, lane: int) -> list[int]:
        """The table of a lane, as the pool wants it."""
        table: list[int] = self.entries[lane, : self.held[lane]].tolist()
        return table

    def extend(self, lane: int, blocks: list[int]) -> None:
        """Append blocks to a table."""
        held = int(self.held[lane])
        self.entries[lane, held : held + len(blocks)] = blocks
        self.held[lane] = held + len(blocks)
        self.own_last(lane)

    def extend_each(self, lanes: IntpArray, blocks: IntpArray) -> None:
        """Append one block to each of these tables (all different)."""
        held, size = self.held[lanes], self.block_size
        self.entries[lanes, held] = blocks
        self._shift[lanes] = (blocks - held) * size
        held += 1
        self.held[lanes] = held
        self.room[lanes] = held * size

    def fork(self, lane: int) -> None:
        """The last block of a table is shared now: nothing is written until it has its own."""
        self.forked[lane] = True
        self.room[lane] = 0

    def replace_last(self, lane: int, block: int) -> None:
        """Have another block than the last of a table."""
        self.entries[lane, self.held[lane] - 1] = block
        self.own_last(lane)

    def own_last(self, lane: int) -> None:
        """The last block of a table is its own."""
        last, size = int(self.held[lane]) - 1, self.block_size
        self.forked[lane] = False
        self.room[lane] = (last + 1) * size
        self._shift[lane] = (int(self.entries[lane, last]) - last) * size

    def slots(self, lanes: IntpArray, positions: IntpArray) -> IntpArray:
        """Where these positions are written, each in the last block of its lane."""
        slots: IntpArray = self._shift[lanes] + positions
        return slots

    def copy(self, leader: int, follower: int) -> None:
        """The same blocks for another lane."""
        held = self.held[leader]
        self.entries[follower, :held] = self.entries[leader, :held]
        columns = (self.held, self.sealed, self.room, self.forked, self._shift)
        for column in columns:
            column[follower] = column[leader]
