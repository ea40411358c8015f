"""The running sequences as columns: one row of each array per lane.

A step over 256 sequences is then a dozen vector operations; Python loops only over what happened
(a block filled up, a sequence ended), never over every sequence.

    tokens[lane]   t0 t1 t2 ... t(length-1)             all known tokens
    table[lane]    b0 b1 ... b(held-1)                  blocks holding their keys and values
                   |<- computed tokens ->|  pending     sealed <= computed // block_size
"""

from collections.abc import Sequence as Items

import numpy as np
import numpy.typing as npt

from engines.limits import Limits
from engines.sequence import NO_LANE, Sequence
from engines.step import Int32Array


class Lanes:
    """Columns for `limits.max_running` sequences, and the free lanes.

    The token matrix is virtual memory: pages become real only as far as sequences grow.
    """

    def __init__(self, limits: Limits) -> None:
        lanes = limits.max_running
        self.block_size = limits.block_size
        self.tokens: Int32Array = np.zeros((lanes, limits.max_context + 1), np.int32)
        self.table: Int32Array = np.zeros((lanes, limits.blocks_per_sequence), np.int32)
        self.length = np.zeros(lanes, np.int32)
        self.computed = np.zeros(lanes, np.int32)
        self.limit = np.zeros(lanes, np.int32)  # length at which a sequence ends
        self.held = np.zeros(lanes, np.int32)
        self.sealed = np.zeros(lanes, np.int32)
        self.running = np.zeros(lanes, np.bool_)  # bound, and not a follower
        self.forked = np.zeros(lanes, np.bool_)  # its last block may be shared with a sibling
        self.parting = np.zeros(lanes, np.bool_)  # followers wait for it to compute the prompt
        self.account = np.zeros(lanes, np.intp)  # of the tenant (engines.fairness)
        self.share = np.ones(lanes)  # one over the tenant's weight
        self._occupant: list[Sequence | None] = [None] * lanes
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
        self.length[lane] = length
        self.limit[lane] = sequence.prompt_len + sequence.request.sampling.max_tokens
        self.computed[lane] = self.held[lane] = self.sealed[lane] = 0
        self.forked[lane] = self.parting[lane] = False
        self.account[lane] = sequence.account
        self.share[lane] = 1.0 / sequence.request.weight
        self._count_stops(sequence, 1)
        return lane

    def unbind(self, sequence: Sequence) -> list[int]:
        """Take the lane back; returns the table to be released, the log goes to the sequence."""
        lane = sequence.lane
        table = self.blocks(lane)
        sequence.log = self.tokens[lane, : self.length[lane]].copy()
        self._count_stops(sequence, -1)
        self._occupant[lane] = None
        self.running[lane] = False
        self._free.append(lane)
        sequence.lane = NO_LANE
        return table

    def active(self) -> Int32Array:
        """The lanes of running sequences, in lane order."""
        return np.flatnonzero(self.running).astype(np.int32)

    def occupants(self, lanes: Int32Array | list[int]) -> list[Sequence]:
        """The sequences in these lanes, all of which must be bound."""
        numbers = lanes if isinstance(lanes, list) else lanes.tolist()
        bound = [self._occupant[lane] for lane in numbers]
        return [sequence for sequence in bound if sequence is not None]

    def blocks(self, lane: int) -> list[int]:
        """The table of a lane, as the pool wants it."""
        table: list[int] = self.table[lane, : self.held[lane]].tolist()
        return table

    def extend(self, lane: int, blocks: list[int]) -> None:
        """Append blocks to a table."""
        held = int(self.held[lane])
        self.table[lane, held : held + len(blocks)] = blocks
        self.held[lane] = held + len(blocks)

    def part(self, leader: int, follower: int) -> None:
        """Copy a leader's whole state, tokens and table to a follower's lane."""
        length, held = self.length[leader], self.held[leader]
        self.tokens[follower, :length] = self.tokens[leader, :length]
        self.table[follower, :held] = self.table[leader, :held]
        for column in (self.length, self.computed, self.held, self.sealed):
            column[follower] = column[leader]

    def append(self, lanes: Int32Array, tokens: Int32Array) -> None:
        """One new token on each of these lanes (all different)."""
        self.tokens[lanes, self.length[lanes]] = tokens
        self.length[lanes] += 1

    def append_forced(self, lane: int, tokens: Items[int]) -> list[int]:
        """More new tokens on one lane, as many as its limit takes; returns those."""
        start, limit = int(self.length[lane]), int(self.limit[lane])
        taken = list(tokens[: limit - start])
        self.tokens[lane, start : start + len(taken)] = taken
        self.length[lane] = start + len(taken)
        return taken

    def maybe_ended(self, lanes: Int32Array, tokens: Int32Array) -> npt.NDArray[np.intp]:
        """Indices into `lanes` whose new token may end them: the length limit, or a stop."""
        over = self.length[lanes] >= self.limit[lanes]
        return np.flatnonzero(over | (self.stops[tokens] > 0))

    def block_tokens(self, lane: int, index: int) -> bytes:
        """The content of block `index` of a lane, as the pool's key."""
        start = index * self.block_size
        return self.tokens[lane, start : start + self.block_size].tobytes()

    def _count_stops(self, sequence: Sequence, change: int) -> None:
        for token in sequence.request.sampling.stop_tokens:
            if 0 <= token < len(self.stops):
                self.stops[token] += change
