"""A step plan as the tensors a forward pass needs, built and moved to the device once per step.

Rows are cut into *tiles* whose shape follows from positions alone, never from how a prompt was
chunked or who else is in the batch; tiles of one shape are one attention call, a *group*:

    decode   one row; keys are its own blocks, padded to a power of two of them
    prefill  the rows at positions [32 t, 32 t + 32) of a segment, absent ones as padding;
             keys are the blocks up to the end of that range

So the arithmetic a row goes through is a function of its sequence (bit for bit where the kernels
are, see docs/engines/torch.md), a short row does not pay for a long one, and a prompt does not pay
for the keys it may not see. Padding is a dummy row that writes to the scratch block.
"""

from collections import defaultdict
from collections.abc import Iterator
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

# Keys gathered at once, over all tiles of a group. At 8 KV heads of 128 in bfloat16 this is 128 MiB
# each for keys and values, the most that attention takes beyond the cache.
GATHERED_KEYS = 65_536

# Queries per prefill tile. Smaller wastes less on short chunks, larger gathers keys less often.
TILE = 32


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows of one segment that attend together; `rows` and `positions` are of equal length."""

    rows: Int64Array
    positions: Int64Array
    table: Int64Array  # blocks, padding included


@dataclass(frozen=True, slots=True)
class Group:
    """Tiles of one shape: `queries` rows each over the same number of blocks."""

    rows: Tensor  # int64 [count * queries], into the rows of the step
    tiles: Tensor  # int64 [count * kv_heads * blocks], see kv.py
    positions: Tensor  # int64 [count, queries]
    tokens: int  # blocks * block_size, keys gathered per tile
    _masks: dict[int | None, Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.positions.shape[0]

    @property
    def queries(self) -> int:
        return self.positions.shape[1]

    def mask(self, window: int | None) -> Tensor:
        """Bool [count, 1, queries, tokens], true where a row may look; built once per window.

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
        tiles = [tile for segment in _segments(plan) for tile in self._tiles(*segment, plan.rows)]
        dummy = plan.rows < MIN_ROWS or any(plan.rows in tile.rows for tile in tiles)
        slots = np.asarray(plan.write_slots, np.int64)
        if dummy:
            scratch = np.full(1, self.scratch)
            tiles.append(Tile(np.full(1, plan.rows), np.zeros(1, np.int64), scratch))
            slots = np.append(slots, scratch * self.block_size)
        return Batch(
            tokens=self._tensor(_padded(plan.tokens, len(slots)))[None],
            positions=self._tensor(_padded(plan.positions, len(slots)))[None],
            blocks=self._tensor(slots // self.block_size),
            offsets=self._tensor(slots % self.block_size),
            logits_rows=self._tensor(_at_least(MIN_ROWS, np.asarray(plan.sample_rows, np.int64))),
            groups=self._groups(tiles),
        )

    def _tiles(
        self, start: int, past: int, rows: int, table: Int64Array, dummy: int
    ) -> Iterator[Tile]:
        """The tiles of one segment: its first row, tokens before it, its rows and its blocks."""
        if rows == 1:
            blocks = -(-(past + 1) // self.block_size)
            yield Tile(
                np.full(1, start), np.full(1, past), self._table(table, _power_of_two(blocks))
            )
            return
        for first in range(past - past % TILE, past + rows, TILE):
            positions = np.arange(first, first + TILE)
            absent = (positions < past) | (positions >= past + rows)
            yield Tile(
                rows=np.where(absent, dummy, start + positions - past),
                positions=positions,
                table=self._table(table, -(-(first + TILE) // self.block_size)),
            )

    def _table(self, table: Int64Array, blocks: int) -> Int64Array:
        """The first `blocks` blocks of a table, scratch where it has fewer."""
        return np.append(table[:blocks], np.full(max(0, blocks - len(table)), self.scratch))

    def _groups(self, tiles: list[Tile]) -> tuple[Group, ...]:
        shapes: defaultdict[tuple[int, int], list[Tile]] = defaultdict(list)
        for tile in tiles:
            shapes[len(tile.rows), len(tile.table)].append(tile)
        return tuple(
            self._group(part)
            for members in shapes.values()
            for part in batched(members, len(members[0].table) * self.block_size)
        )

    def _group(self, members: list[Tile]) -> Group:
        tables = np.stack([tile.table for tile in members])
        heads = np.arange(self.kv_heads)[:, None]
        return Group(
            rows=self._tensor(np.concatenate([tile.rows for tile in members])),
            tiles=self._tensor((tables[:, None, :] * self.kv_heads + heads).ravel()),
            positions=self._tensor(np.stack([tile.positions for tile in members])),
            tokens=tables.shape[1] * self.block_size,
        )

    def _tensor(self, values: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self.device)


def batched(tiles: list[Tile], keys: int) -> Iterator[list[Tile]]:
    """Tiles of `keys` keys each, in parts that gather at most GATHERED_KEYS together.

    A step may replay hundreds of rows of one long sequence, or decode many lanes over one long
    prefix: gathered at once, each row's keys apart, that is many times the whole cache.
    """
    count = max(1, GATHERED_KEYS // keys)
    for start in range(0, len(tiles), count):
        yield tiles[start : start + count]


def _segments(plan: StepPlan) -> Iterator[tuple[int, int, int, Int64Array]]:
    """First row, tokens before it, rows and blocks of each segment."""
    bounds = zip(pairwise(plan.row_starts), pairwise(plan.table_starts), strict=True)
    for past, ((start, stop), (first, last)) in zip(plan.past, bounds, strict=True):
        table = np.asarray(plan.tables[first:last], np.int64)
        yield int(start), int(past), int(stop - start), table


def _padded(values: npt.NDArray[np.int32], count: int) -> Int64Array:
    """Values, then zeros up to `count`."""
    return np.append(values, np.zeros(count - len(values), np.int64)).astype(np.int64)


def _power_of_two(count: int) -> int:
    """The smallest power of two that is not below count, for count >= 1."""
    return 1 << (count - 1).bit_length()


def _at_least(count: int, rows: Int64Array) -> Int64Array:
    """Rows, the last one repeated up to `count`; nothing stays nothing."""
    missing = max(0, count - len(rows)) if len(rows) else 0
    return np.append(rows, np.repeat(rows[-1:], missing))
