"""Writes a step's arrays in place, into buffers made once: see step.py for the layout."""

from collections.abc import Sequence

import numpy as np

from engines.lanes import Lanes
from engines.limits import Limits
from engines.step import Int32Array, LaneStart, StepPlan


class PlanWriter:
    """Builds one StepPlan after another; each overwrites the one before."""

    def __init__(self, limits: Limits, lanes: Lanes) -> None:
        rows = limits.tokens_per_step
        self._lanes = lanes
        self._size = limits.block_size
        self._tokens = np.zeros(rows, np.int32)
        self._positions = np.zeros(rows, np.int32)
        self._write_slots = np.zeros(rows, np.int32)
        self._row_starts = np.zeros(rows + 1, np.int32)
        self._past = np.zeros(rows, np.int32)
        self._segment_lanes = np.zeros(rows, np.int32)
        self._table_starts = np.zeros(rows + 1, np.int32)
        self._tables = np.zeros(limits.max_running * 8, np.int32)  # grows with the contexts
        self._sample_rows = np.zeros(limits.max_running, np.int32)
        self._sample_lanes = np.zeros(limits.max_running, np.int32)
        self._count = np.arange(max(rows, limits.blocks_per_sequence) + 1, dtype=np.int32)
        self.begin()

    def begin(self) -> None:
        """Forget the last plan."""
        self._row = self._segment = self._entry = self._sample = 0

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._row

    def single_rows(self, lanes: Int32Array, positions: Int32Array) -> None:
        """One segment of one row for each (lane, position): decoding, and replayed output."""
        count = len(lanes)
        self._put_rows(lanes, positions)
        at = self._segment
        self._past[at : at + count] = positions
        self._segment_lanes[at : at + count] = lanes
        self._row_starts[at + 1 : at + count + 1] = self._count[1 : count + 1] + self._row
        held = positions // self._size + 1
        widest = int(held.max())
        used = self._count[:widest] < held[:, None]
        self._put_tables(self._lanes.table[lanes, :widest][used], held)
        self._row += count
        self._segment += count

    def run(self, lane: int, start: int, count: int) -> None:
        """One segment of `count` rows: a chunk of a prompt."""
        positions = self._count[:count] + start
        self._put_rows(lane, positions)
        at = self._segment
        self._past[at] = start
        self._segment_lanes[at] = lane
        self._row_starts[at + 1] = self._row + count
        held = (start + count - 1) // self._size + 1
        self._put_tables(self._lanes.table[lane, :held], np.array([held], np.int32))
        self._row += count
        self._segment += 1

    def sample_singles(self, lanes: Int32Array) -> None:
        """Sample the last `len(lanes)` rows, one for each lane."""
        at, count = self._sample, len(lanes)
        self._sample_rows[at : at + count] = self._count[:count] + (self._row - count)
        self._sample_lanes[at : at + count] = lanes
        self._sample += count

    def sample_last(self, lanes: Sequence[int]) -> None:
        """Sample the last row once for each lane."""
        at, count = self._sample, len(lanes)
        self._sample_rows[at : at + count] = self._row - 1
        self._sample_lanes[at : at + count] = lanes
        self._sample += count

    def plan(self, copies: Sequence[tuple[int, int]], starts: Sequence[LaneStart]) -> StepPlan:
        """The plan written since `begin`, as views."""
        rows, segments = self._row, self._segment
        return StepPlan(
            tokens=self._tokens[:rows],
            positions=self._positions[:rows],
            write_slots=self._write_slots[:rows],
            row_starts=self._row_starts[: segments + 1],
            past=self._past[:segments],
            segment_lanes=self._segment_lanes[:segments],
            tables=self._tables[: self._entry],
            table_starts=self._table_starts[: segments + 1],
            sample_rows=self._sample_rows[: self._sample],
            sample_lanes=self._sample_lanes[: self._sample],
            copies=copies,
            starts=starts,
        )

    def _put_rows(self, lanes: Int32Array | int, positions: Int32Array) -> None:
        rows = slice(self._row, self._row + len(positions))
        blocks = self._lanes.table[lanes, positions // self._size]
        self._tokens[rows] = self._lanes.tokens[lanes, positions]
        self._positions[rows] = positions
        self._write_slots[rows] = blocks * self._size + positions % self._size

    def _put_tables(self, entries: Int32Array, held: Int32Array) -> None:
        at, end = self._entry, self._entry + len(entries)
        if end > len(self._tables):
            self._tables = np.concatenate([self._tables, np.zeros(2 * end, np.int32)])
        self._tables[at:end] = entries
        segment = self._segment
        ends = np.cumsum(held) + at
        self._table_starts[segment + 1 : segment + 1 + len(held)] = ends
        self._entry = end
