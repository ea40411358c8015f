"""Gives running sequences the blocks that their next rows write to. Pure.

Mostly a few sequences have filled their last block, and there are free ones: that is done by
columns. Else one after the other in order of seniority, and where no block is free the least senior
running sequence gives all of its own back.
"""

from collections.abc import Callable
from collections.abc import Sequence as Items

import numpy as np

from engines.lanes import Lanes
from engines.sequence import NO_LANE, Sequence
from engines.tables import IntpArray
from kvcache.pool import BlockPool


class Reserver:
    """`running` is the scheduler's list; `preempt` takes a sequence out of it, with its blocks."""

    def __init__(
        self,
        lanes: Lanes,
        pool: BlockPool,
        running: Items[Sequence],
        preempt: Callable[[Sequence], None],
    ) -> None:
        self.copies: list[tuple[int, int]] = []  # (from, to), for the next plan to carry out
        self._lanes = lanes
        self._tables = lanes.tables
        self._pool = pool
        self._running = running
        self._preempt = preempt

    def reserve(self) -> None:
        """Have room for all tokens of every running sequence, none of it shared."""
        length, tables = self._lanes.length, self._tables
        running = self._lanes.active()
        needy = running[length[running] > tables.room[running]]
        while len(needy):  # forced tokens may need several
            if len(needy) > self._pool.free or tables.forked[needy].any():
                self._reserve_in_turn(needy)
                return
            tables.extend_each(needy, np.array(self._pool.take(len(needy))))
            needy = needy[length[needy] > tables.room[needy]]

    def take_copies(self) -> list[tuple[int, int]]:
        """What is to be copied; it is then another's to see to."""
        copies, self.copies = self.copies, []
        return copies

    def _reserve_in_turn(self, needy: IntpArray) -> None:
        for sequence in sorted(self._lanes.occupants(needy), key=seniority):
            while self._needs_block(sequence.lane):
                self._reserve_next(sequence)

    def _needs_block(self, lane: int) -> bool:
        preempted = lane == NO_LANE  # meanwhile
        return not preempted and bool(self._lanes.length[lane] > self._tables.room[lane])

    def _reserve_next(self, sequence: Sequence) -> None:
        lane, tables, pool = sequence.lane, self._tables, self._pool
        forked, tail = bool(tables.forked[lane]), int(tables.entries[lane, tables.held[lane] - 1])
        if not (forked and pool.refs(tail) == 1) and not self._make_room(sequence):
            return
        if not forked:
            tables.extend(lane, pool.take(1))
        elif pool.refs(tail) == 1:  # the siblings have left it: it is written in place
            tables.own_last(lane)
        else:
            (block,) = pool.take(1)
            self.copies.append((tail, block))
            pool.release((tail,))
            tables.replace_last(lane, block)

    def _make_room(self, sequence: Sequence) -> bool:
        """Preempt until a block is free; False if that took `sequence` itself."""
        while not self._pool.free:
            victim = max(self._running, key=seniority)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True


def seniority(sequence: Sequence) -> tuple[int, int, int]:
    """Sorts running sequences; the last is the first to be preempted."""
    return (sequence.request.priority, sequence.arrival, sequence.choice)
