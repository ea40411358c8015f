"""The running sequences as columns: one row of each array per lane.

A step over 256 sequences is then two dozen vector operations; Python loops only over what happened
(a block filled up, a sequence ended), never over every sequence. Lanes that index columns are of
numpy's own index type: with any other an index takes three times as long.

    tokens[lane]   t0 t1 t2 ... t(length-1)     all known tokens
                   |<- computed ->|  pending
"""

from collections.abc import Sequence as Items

import numpy as np

from engines.limits import Limits
from engines.sequence import NO_LANE, Sequence
from engines.step import Int32Array
from engines.tables import BlockTables, IntpArray


class Lanes:
    """Columns for `limits.max_running` sequences, and the free lanes.

    The token matrix is virtual memory: pages become real only as far as sequences grow.
    """

    def __init__(self, limits: Limits) -> None:
        lanes = limits.max_running
        self.tokens: Int32Array = np.zeros((lanes, limits.max_context + 1), np.int32)
        self.last: Int32Array = np.zeros(lanes, np.int32)  # the last token
        self.tables = BlockTables(limits)
        self.length: IntpArray = np.zeros(lanes, np.intp)
        self.computed: IntpArray = np.zeros(lanes, np.intp)
        self.limit: IntpArray = np.zeros(lanes, np.intp)  # length at which a sequence ends
        self._running = np.zeros(lanes, np.bool_)  # bound, and not a follower
        self._active: IntpArray | None = None  # the lanes of those, while nothing changes,
        self._everyone: list[Sequence] = []  # and who is in them
        self.parting = np.zeros(lanes, np.bool_)  # followers wait for it to compute the prompt
        self.account = np.zeros(lanes, np.intp)  # of the tenant (engines.fairness)
        self.share = np.ones(lanes)  # one over the tenant's weight
        self._occupant = np.full(lanes, None, np.object_)
        self._free = list(range(lanes))[::-1]
        # How many running sequences end on each token: one vector look-up finds the few lanes
        # whose new token is worth looking at.
        self.stops = np.zeros(limits.vocab_size, np.int32)

    @property
    def free(self) -> int:
        """Lanes nobody runs in."""
        return len(self._free)

    def bind(self, sequence: Sequence) -> int:
        """Give a sequence a lane, with its known tokens and nothing computed."""
        lane = sequence.lane = self._free.pop()
        length = len(sequence.log)
        self._occupant[lane] = sequence
        self.tokens[lane, :length] = sequence.log
        self.last[lane] = sequence.log[-1]
        self.length[lane] = length
        self.limit[lane] = sequence.prompt_len + sequence.request.sampling.max_tokens
        self.computed[lane] = 0
        self.parting[lane] = False
        self.tables.clear(lane)
        self.account[lane] = sequence.account
        self.share[lane] = 1.0 / sequence.request.weight
        self._count_stops(sequence, 1)
        return lane

    def unbind(self, sequence: Sequence) -> list[int]:
        """Take the lane back; returns the table to be released, the log goes to the sequence."""
        lane = sequence.lane
        table = self.tables.blocks(lane)
        sequence.log = self.tokens[lane, : self.length[lane]].copy()
        self._count_stops(sequence, -1)
        self._occupant[lane] = None
        self._running[lane] = False
        self._active = None
        self._free.append(lane)
        sequence.lane = NO_LANE
        return table

    def run(self, lane: int) -> None:
        """A bound lane takes part in the steps from now on."""
        self._running[lane] = True
        self._active = None

    def active(self) -> IntpArray:
        """The lanes of running sequences, in lane order. Not to be written to."""
        if self._active is None:
            self._active = np.flatnonzero(self._running)
            self._everyone = self._occupant[self._active].tolist()
        return self._active

    def occupant(self, lane: int) -> Sequence:
        """The sequence in a lane, which must be bound."""
        sequence: Sequence = self._occupant[lane]
        return sequence

    def occupants(self, lanes: IntpArray) -> list[Sequence]:
        """The sequences in these lanes, all of which must be bound. Not to be changed.

        Of all that run, which is what a step mostly wants, the list is there already.
        """
        if lanes is self._active:
            return self._everyone
        sequences: list[Sequence] = self._occupant[lanes].tolist()
        return sequences

    def part(self, leader: int, follower: int) -> None:
        """Copy a leader's whole state, tokens and table to a follower's lane."""
        length = self.length[leader]
        self.tokens[follower, :length] = self.tokens[leader, :length]
        for column in (self.last, self.length, self.computed):
            column[follower] = column[leader]
        self.tables.copy(leader, follower)

    def append(self, lanes: IntpArray, tokens: Int32Array) -> None:
        """One new token on each of these lanes (all different)."""
        length = self.length[lanes]
        self.tokens[lanes, length] = self.last[lanes] = tokens
        self.length[lanes] = length + 1

    def append_more(self, lane: int, tokens: Items[int]) -> list[int]:
        """More new tokens on one lane, as many as its limit takes; returns those."""
        start, limit = int(self.length[lane]), int(self.limit[lane])
        taken = list(tokens[: limit - start])
        self.tokens[lane, start : start + len(taken)] = taken
        self.length[lane] = start + len(taken)
        self.last[lane] = self.tokens[lane, start + len(taken) - 1]
        return taken

    def maybe_ended(self, lanes: IntpArray, tokens: Int32Array) -> IntpArray:
        """Indices into `lanes` whose new token may end them: the length limit, or a stop."""
        over = self.length[lanes] >= self.limit[lanes]
        over |= self.stops.take(tokens) > 0
        return over.nonzero()[0]

    def _count_stops(self, sequence: Sequence, change: int) -> None:
        for token in sequence.request.sampling.stop_tokens:
            if 0 <= token < len(self.stops):
                self.stops[token] += change
