"""A step plan as bytes, for the processes that compute parts of it: numbers, and nothing else.

    int32 [11]   how many items of each of the following
    int32 ...    the arrays of the plan in the order of FIELDS, then its copies, pair by pair

What only a sampler reads (lanes that start, drafts) is not sent: one process samples.
"""

from typing import Any, BinaryIO

import numpy as np

from engines.step import StepPlan

FIELDS = (
    "tokens", "positions", "write_slots", "row_starts", "past", "segment_lanes", "tables",
    "table_starts", "sample_rows", "sample_lanes",
)  # fmt: skip
_ITEM = 4
_HEAD = _ITEM * (len(FIELDS) + 1)


def encoded(plan: StepPlan) -> bytes:
    """The frame of a plan. Raises ValueError for one that moves blocks: each has but a part."""
    if plan.saves or plan.restores:
        raise ValueError("blocks of a divided model are not saved and restored")
    arrays = [getattr(plan, name) for name in FIELDS]
    arrays.append(np.array(plan.copies, np.int32).reshape(-1))
    counts = np.array([len(array) for array in arrays], np.int32)
    return b"".join(np.ascontiguousarray(each, np.int32).tobytes() for each in (counts, *arrays))


def read_plan(stream: BinaryIO) -> StepPlan | None:
    """The next plan; None where the stream has ended, also within one."""
    head = stream.read(_HEAD)
    if len(head) < _HEAD:
        return None
    counts = np.frombuffer(head, np.int32)
    size = _ITEM * int(counts.sum())
    body = stream.read(size)
    if len(body) < size:
        return None
    *arrays, copies = np.split(np.frombuffer(body, np.int32), np.cumsum(counts)[:-1])
    pairs = tuple((source, target) for source, target in copies.reshape(-1, 2).tolist())
    named: dict[str, Any] = dict(zip(FIELDS, arrays, strict=True))
    return StepPlan(**named, copies=pairs)
