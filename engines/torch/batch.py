"""A step plan as the tensors a forward pass needs, built and moved to the device once per step.

Segments are gathered into *groups* of one shape, so that attention is one call per group:

    decode group   S segments of one row; same padded number of blocks, a power of two
    prefill group  one segment of Q rows

A decode row is padded to a power of two of its *own* blocks, not to the longest row of the batch:
the arithmetic a row goes through is then a function of its own length, whoever runs beside it, and
a short row does not pay for a long one.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.step import StepPlan

Int64Array = npt.NDArray[np.int64]

# A single row takes other kernels (matrix times vector) than several, with other rounding. Steps
# of one row are padded with a dummy, so that a token does not depend on the batch it was in.
MIN_ROWS = 2


@dataclass(frozen=True, slots=True)
class Group:
    """Segments of `queries` rows each that attend over the same number of blocks."""

    rows: Tensor  # int64 [segments * queries], into the rows of the step
    tiles: Tensor  # int64 [segments * kv_heads * blocks], see kv.py
    positions: Tensor  # int64 [segments, queries]
    tokens: int  # blocks * block_size, keys gathered per segment
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    @property
    def segments(self) -> int:
        return self.positions.shape[0]

    @property
    def queries(self) -> int:
        return self.positions.shape[1]

    def mask(self, window: int | None) -> Tensor:
        """Bool [segments, 1, queries, tokens], true where a row may look; built once per window.

        A window of w tokens is the row itself and the w - 1 before it.
        """
        if window not in self._masks:
            seen = torch.arange(self.tokens, device=self.positions.device)
            at = self.positions[:, None, :, None]
            mask = seen <= at
            if window is not None:
                mask &= seen > at - window
            self._masks[window] = mask
        return self._masks[window]


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one step on the device. Rows are those of the plan, then any dummy."""

    tokens: Tensor  # int64 [1, rows]
    positions: Tensor  # int64 [1, rows]
    blocks: Tensor  # int64 [rows], where each row writes
    offsets: Tensor  # int64 [rows], within its block
    logits_rows: Tensor  # int64 [max(samples, MIN_ROWS)], or empty when nothing is sampled
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Packer:
    """Turns plans into batches for one KV layout."""

    block_size: int
    kv_heads: int
    scratch: int  # the block that padding rows and padded tables use
    device: torch.device

    def pack(self, plan: StepPlan) -> Batch:
        """Copy everything out of the plan; its buffers may be overwritten afterwards."""
        tokens, positions, slots = (
            np.asarray(a, np.int64) for a in (plan.tokens, plan.positions, plan.write_slots)
        )
        dummies = max(0, MIN_ROWS - plan.rows)
        tokens = np.append(tokens, np.zeros(dummies, np.int64))
        slots = np.append(slots, np.full(dummies, self.scratch * self.block_size))
        return Batch(
            tokens=self._tensor(tokens)[None],
            positions=self._tensor(np.append(positions, np.zeros(dummies, np.int64)))[None],
            blocks=self._tensor(slots // self.block_size),
            offsets=self._tensor(slots % self.block_size),
            logits_rows=self._tensor(_at_least(MIN_ROWS, np.asarray(plan.sample_rows, np.int64))),
            groups=tuple(self._groups(plan, dummies)),
        )

    def _groups(self, plan: StepPlan, dummies: int) -> list[Group]:
        """Decode groups by padded blocks, then one group per longer segment."""
        decode: defaultdict[int, list[tuple[int, int, Int64Array]]] = defaultdict(list)
        prefill: list[Group] = []
        bounds = zip(pairwise(plan.row_starts), pairwise(plan.table_starts), strict=True)
        for past, ((start, stop), (first, last)) in zip(plan.past, bounds, strict=True):
            needed = -(-(int(past) + int(stop) - int(start)) // self.block_size)
            table = np.asarray(plan.tables[first : min(last, first + needed)], np.int64)
            if stop - start == 1:
                decode[_power_of_two(needed)].append((int(start), int(past), table))
            else:
                positions = np.arange(past, past + stop - start)[None]
                prefill.append(self._group(np.arange(start, stop), positions, table[None]))
        for row in range(plan.rows, plan.rows + dummies):
            decode[1].append((row, 0, np.array([self.scratch])))
        return [self._decode_group(blocks, rows) for blocks, rows in decode.items()] + prefill

    def _decode_group(self, blocks: int, members: list[tuple[int, int, Int64Array]]) -> Group:
        rows, past, tables = zip(*members, strict=True)
        padded = np.full((len(rows), blocks), self.scratch)
        for line, table in zip(padded, tables, strict=True):
            line[: len(table)] = table
        return self._group(np.array(rows), np.array(past)[:, None], padded)

    def _group(self, rows: Int64Array, positions: Int64Array, tables: Int64Array) -> Group:
        """Tables are int64 [segments, blocks]."""
        heads = np.arange(self.kv_heads)[:, None]
        tiles = tables[:, None, :] * self.kv_heads + heads
        return Group(
            rows=self._tensor(rows),
            tiles=self._tensor(tiles.ravel()),
            positions=self._tensor(positions),
            tokens=tables.shape[1] * self.block_size,
        )

    def _tensor(self, values: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)


def _power_of_two(count: int) -> int:
    """The smallest power of two that is not below count, for count >= 1."""
    return 1 << (count - 1).bit_length()


def _at_least(count: int, rows: Int64Array) -> Int64Array:
    """Rows, the last one repeated up to `count`; nothing stays nothing."""
    missing = max(0, count - len(rows)) if len(rows) else 0
    return np.append(rows, np.repeat(rows[-1:], missing))
