"""A step plan as one array of int32, so that all of it reaches the device in one copy.

    tokens, positions, slots                         3 x [rows]
    tiles of one row: row, count, position, table    4 x [single]
    tiles of several, likewise                       4 x [ragged]
    tables                                           [entries]

A step of nothing but single rows may be padded to a *bucket*, a number of rows that was captured
before: then every column begins where it always does for that bucket. A padding row writes to the
scratch block and looks at it; the first entry of the tables is that block, for its table.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from torch import Tensor

from engines.step import Int32Array, StepPlan
from engines.torch.cuda.port import FOLDED, Rows, Tiles

# Columns begin at 16 bytes: Triton compiles a kernel again for pointers that are aligned otherwise,
# and columns that began anywhere would make it do so while somebody waits.
_ALIGNED = 4

_BUCKETS = (1, 2, 4, *range(8, 257, 8), *range(288, 513, 32), *range(576, 4097, 64))


def buckets(most: int) -> tuple[int, ...]:
    """The numbers of rows that decoding steps of up to `most` sequences are padded to."""
    below = tuple(bucket for bucket in _BUCKETS if bucket < most)
    return (*below, next((bucket for bucket in _BUCKETS if bucket >= most), most))


@dataclass(frozen=True, slots=True)
class Shape:
    """How many of everything a packed step has."""

    rows: int
    single: int
    ragged: int

    @property
    def sizes(self) -> list[int]:
        """Items of each column before the tables."""
        return [self.rows] * 3 + [self.single] * 4 + [self.ragged] * 4

    @property
    def starts(self) -> list[int]:
        """Where each column begins, and then the tables."""
        return list(accumulate((-(-size // _ALIGNED) * _ALIGNED for size in self.sizes), initial=0))

    @property
    def head(self) -> int:
        """Items before the tables."""
        return self.starts[-1]


@dataclass(frozen=True, slots=True)
class Packed:
    """A step as the host knows it; `items` includes the tables, and their first is scratch."""

    shape: Shape
    items: Int32Array


@dataclass(frozen=True, slots=True)
class RowPacker:
    """Packs plans for one KV layout; `group` query heads share a KV head."""

    block_size: int
    scratch: int
    group: int

    def decodes(self, plan: StepPlan) -> bool:
        """Whether every segment is one row."""
        return plan.segments == plan.rows

    def pack(self, plan: StepPlan, bucket: int | None = None) -> Packed:
        """Copy a plan; to a bucket of at least as many rows only what `decodes`."""
        starts, tables = plan.row_starts[:-1], plan.table_starts[:-1] + 1
        counts = np.diff(plan.row_starts)
        alone = counts == 1
        ragged = self._cut(plan, np.flatnonzero(~alone))
        padding = 0 if bucket is None else bucket - plan.rows
        shape = Shape(plan.rows + padding, int(alone.sum()) + padding, len(ragged))
        unwritten = np.full(padding, self.scratch * self.block_size, np.int32)
        none, ones = np.zeros(padding, np.int32), np.ones(padding, np.int32)
        beyond = np.arange(plan.rows, plan.rows + padding, dtype=np.int32)
        columns = (
            (plan.tokens, none), (plan.positions, none), (plan.write_slots, unwritten),
            (starts[alone], beyond), (counts[alone], ones), (plan.past[alone], none),
            (tables[alone], none), *((column,) for column in ragged.T),
        )  # fmt: skip
        items = np.zeros(shape.head + 1 + len(plan.tables), np.int32)
        for start, size, parts in zip(shape.starts[:-1], shape.sizes, columns, strict=True):
            np.concatenate(parts, out=items[start : start + size])
        items[shape.head] = self.scratch
        items[shape.head + 1 :] = plan.tables
        return Packed(shape, items)

    def _cut(self, plan: StepPlan, segments: np.ndarray) -> Int32Array:
        """Tiles int32 [tiles, 4] of the segments of several rows; longest tables first."""
        most = max(1, FOLDED // self.group)
        bounds = list(pairwise(plan.row_starts.tolist()))
        tiles = [
            (row, min(most, last - row), int(plan.past[segment]) + row - first,
             int(plan.table_starts[segment]) + 1)
            for segment in segments.tolist()
            for first, last in [bounds[segment]]
            for row in range(first, last, most)
        ]  # fmt: skip
        # The tiles that scan most begin first, so that no late one keeps the device waiting.
        tiles.sort(key=lambda tile: -tile[2])
        return np.array(tiles, np.int32).reshape(-1, 4)


def views(items: Tensor, shape: Shape) -> Rows:
    """The columns of a packed step, wherever it lies; tables reach to the end of `items`."""
    places = zip(shape.starts[:-1], shape.sizes, strict=True)
    parts = [items[start : start + size] for start, size in places]
    tokens, positions, slots = parts[:3]
    tables = items[shape.head :]
    return Rows(tokens, positions, slots, Tiles(*parts[3:7]), Tiles(*parts[7:11]), tables)
