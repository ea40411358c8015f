"""A plan in the parts that the plugin may compute at once: usually one.

In float32 the plugin clears what lies behind a chunk in its last block, after all rows of the step
have been written. Rows that replay output right behind their own prompt's chunk would lose their
values; they make a second part.

    segments    [chunk of lane 1] [row of 1] [row of 1] [row of lane 2]
    parts       ^                                       ^                   first
                                  ^          ^                              second
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engines.step import Int32Array, StepPlan


@dataclass(frozen=True, slots=True)
class Part:
    """Some segments of a plan as a plan of their own, and which rows of the whole theirs are."""

    plan: StepPlan
    rows: Int32Array
    whole: bool = False  # it is the only part

    def wanted(self, rows: Int32Array) -> tuple[npt.NDArray[np.intp], Int32Array]:
        """Of rows of the whole that are wanted: the places of those here, and their rows here."""
        if self.whole:
            return np.arange(len(rows)), rows
        places = np.flatnonzero(np.isin(rows, self.rows))
        return places, np.searchsorted(self.rows, rows[places]).astype(np.int32)


def parts_of(plan: StepPlan) -> tuple[Part, ...]:
    """The parts of a plan, in the order in which they must be computed."""
    lengths = np.diff(plan.row_starts)
    chunks = plan.segment_lanes[lengths > 1]
    if len(chunks):
        behind = (lengths == 1) & np.isin(plan.segment_lanes, chunks)
        if behind.any():
            return tuple(_part(plan, np.flatnonzero(some)) for some in (~behind, behind))
    return (Part(plan, np.arange(plan.rows, dtype=np.int32), whole=True),)


def _part(plan: StepPlan, segments: npt.NDArray[np.intp]) -> Part:
    rows, row_starts = _gathered(plan.row_starts, segments)
    entries, table_starts = _gathered(plan.table_starts, segments)
    part = replace(
        plan,
        tokens=plan.tokens[rows],
        positions=plan.positions[rows],
        write_slots=plan.write_slots[rows],
        row_starts=row_starts,
        past=plan.past[segments],
        segment_lanes=plan.segment_lanes[segments],
        tables=plan.tables[entries],
        table_starts=table_starts,
    )
    return Part(part, rows)


def _gathered(starts: Int32Array, segments: npt.NDArray[np.intp]) -> tuple[Int32Array, Int32Array]:
    """The elements of some segments of a ragged array, and where each of them starts there."""
    elements = np.concatenate(list(_elements(starts, segments)))
    lengths = starts[segments + 1] - starts[segments]
    return elements, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _elements(starts: Int32Array, segments: npt.NDArray[np.intp]) -> Iterator[Int32Array]:
    for segment in segments:
        yield np.arange(starts[segment], starts[segment + 1], dtype=np.int32)
