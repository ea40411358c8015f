"""Writes a step's arrays in place, into buffers made once: see step.py for the layout."""

from collections.abc import Sequence

import numpy as np

from engines.lanes import Lanes
from engines.limits import Limits
from engines.step import Int32Array, LaneStart, StepPlan
from engines.tables import IntpArray


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
        self._sample_rows = np.zeros(rows, np.int32)
        self._sample_lanes = np.zeros(rows, np.int32)
        self._count = np.arange(max(rows, limits.max_context, len(self._tables)) + 1)
        self.begin()

    def begin(self) -> None:
        """Forget the last plan."""
        self._row = self._segment = self._entry = self._sample = self._drafts = 0

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._row

    def decode(self, lanes: IntpArray, positions: IntpArray) -> None:
        """The last token of each of these lanes, as a segment of its own, to be sampled."""
        rows = slice(self._row, self._row + len(lanes))
        self._tokens[rows] = self._lanes.last[lanes]
        self._write_slots[rows] = self._lanes.tables.slots(lanes, positions)
        self._sample_each(lanes)
        self._put_singles(lanes, positions)

    def decode_drafts(self, lanes: IntpArray, positions: IntpArray, counts: IntpArray) -> None:
        """As `decode`; so many drafts behind each lane's last token are samples as well."""
        runs = counts + 1
        within = self._count[: runs.sum()] - (runs.cumsum() - runs).repeat(runs)
        lanes, positions = lanes.repeat(runs), positions.repeat(runs) + within
        rows = slice(self._row, self._row + len(lanes))
        self._tokens[rows] = self._lanes.tokens[lanes, positions]
        self._write_slots[rows] = self._lanes.tables.slots(lanes, positions)
        self._drafts += int(counts.sum())
        self._sample_each(lanes)
        self._put_singles(lanes, positions)

    def replay(self, lane: int, positions: IntpArray) -> None:
        """Output that is computed again: a segment of one row for each position."""
        rows, index = slice(self._row, self._row + len(positions)), positions // self._size
        self._tokens[rows] = self._lanes.tokens[lane, positions]
        blocks = self._lanes.tables.entries[lane, index] - index
        self._write_slots[rows] = blocks * self._size + positions
        self._put_singles(np.full(len(positions), lane), positions)

    def run(self, lane: int, start: int, count: int) -> None:
        """One segment of `count` rows: a chunk of a prompt."""
        positions = self._count[start : start + count]
        rows, index = slice(self._row, self._row + count), positions // self._size
        self._tokens[rows] = self._lanes.tokens[lane, start : start + count]
        self._positions[rows] = positions
        blocks = self._lanes.tables.entries[lane, index] - index
        self._write_slots[rows] = blocks * self._size + positions
        at = self._segment
        self._past[at] = start
        self._segment_lanes[at] = lane
        self._row_starts[at + 1] = self._row + count
        held = (start + count - 1) // self._size + 1
        self._put_table(self._lanes.tables.entries[lane, :held])
        self._row += count
        self._segment += 1

    def sample_last(self, lanes: IntpArray) -> None:
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
            drafts=self._drafts,
        )

    def _sample_each(self, lanes: IntpArray) -> None:
        """Sample the rows that come next, one for each of these."""
        samples = slice(self._sample, self._sample + len(lanes))
        self._sample_rows[samples] = self._count[self._row : self._row + len(lanes)]
        self._sample_lanes[samples] = lanes
        self._sample += len(lanes)

    def _put_singles(self, lanes: IntpArray, positions: IntpArray) -> None:
        """Segments of one row; their tokens and slots are written already."""
        count, at, row = len(lanes), self._segment, self._row
        self._positions[row : row + count] = positions
        self._past[at : at + count] = positions
        self._segment_lanes[at : at + count] = lanes
        self._row_starts[at + 1 : at + count + 1] = self._count[row + 1 : row + count + 1]
        self._put_tables(lanes, positions // self._size + 1)
        self._row += count
        self._segment += count

    def _put_tables(self, lanes: IntpArray, held: IntpArray) -> None:
        """The first `held` entries of each lane's table, one after the other.

        As one gather, whose cost is the entries: a long sequence costs nothing for the short ones.
        """
        table = self._lanes.tables.entries
        ends = held.cumsum()
        entries = int(ends[-1])
        starts = lanes * table.shape[1]  # of each lane's table in the flat one
        starts[1:] -= ends[:-1]
        self._reserve(self._entry + entries)
        places = starts.repeat(held)
        places += self._count[:entries]
        table.ravel().take(
            places, out=self._tables[self._entry : self._entry + entries], mode="clip"
        )
        segment = self._segment
        ends += self._entry
        self._table_starts[segment + 1 : segment + 1 + len(held)] = ends
        self._entry += entries

    def _put_table(self, entries: Int32Array) -> None:
        at, end = self._entry, self._entry + len(entries)
        self._reserve(end)
        self._tables[at:end] = entries
        self._table_starts[self._segment + 1] = end
        self._entry = end

    def _reserve(self, entries: int) -> None:
        """Have room for so many table entries."""
        if entries > len(self._tables):
            self._tables = np.concatenate([self._tables, np.zeros(2 * entries, np.int32)])
            self._count = np.arange(max(len(self._count), len(self._tables) + 1))
