"""A plan as one array: every row in one tile, tables at hand, padding out of the way."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.torch.cuda.packing import RowPacker, buckets, views
from engines.torch.cuda.port import FOLDED
from tests.support.plans import Driver, Run

BLOCK, BLOCKS = 8, 400


def planned(runs):
    """The plan of sequences given as (tokens before, rows of the step)."""
    drive = Driver(None, num_blocks=BLOCKS, block_size=BLOCK)
    steps = []
    for lane, (past, rows) in enumerate(runs):
        seq = drive.start(lane, [7 + lane] * (past + rows))
        seq.computed = past
        steps.append(Run(seq, rows))
    return drive.plan(steps)


RUNS = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 70)), min_size=1, max_size=12)


@pytest.mark.parametrize("most", [1, 3, 16, 100, 256, 300, 4096, 5000])
def test_every_number_of_rows_has_a_bucket(most):
    """They rise, and the last takes as many rows as there may be."""
    sizes = buckets(most)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] >= most
    assert len(sizes) == 1 or sizes[-2] < most


@given(runs=RUNS, group=st.sampled_from([1, 3, 4, 7, 64, 100]))
def test_a_packed_plan_is_the_plan(runs, group):
    """Its columns are those of the plan, and its tiles cover every row once, with its own table."""
    plan = planned(runs)
    packed = RowPacker(BLOCK, BLOCKS, group).pack(plan)
    rows = views(torch.from_numpy(packed.items), packed.shape)
    assert all(start % 4 == 0 for start in packed.shape.starts)  # 16 bytes: see packing.py
    for column, truth in (
        (rows.tokens, plan.tokens),
        (rows.positions, plan.positions),
        (rows.slots, plan.write_slots),
    ):
        assert column.tolist() == truth.tolist()
    seen = []
    for tiles in (rows.single, rows.ragged):
        for first, count, position, table in zip(
            tiles.rows.tolist(), tiles.counts.tolist(), tiles.positions.tolist(),
            tiles.tables.tolist(), strict=True,
        ):  # fmt: skip
            assert count <= max(1, FOLDED // group)
            segment = int(np.searchsorted(plan.row_starts, first, side="right")) - 1
            own = plan.tables[plan.table_starts[segment] : plan.table_starts[segment + 1]]
            assert rows.tables[table : table + len(own)].tolist() == own.tolist()
            assert plan.positions[first : first + count].tolist() == [
                position + i for i in range(count)
            ]
            seen += range(first, first + count)
    assert sorted(seen) == list(range(plan.rows))
    assert set(rows.single.counts.tolist()) <= {1}


@given(pasts=st.lists(st.integers(0, 90), min_size=1, max_size=12), more=st.integers(0, 9))
def test_padding_writes_to_scratch_and_looks_at_it(pasts, more):
    """The rows of a bucket beyond the plan's touch nothing that anybody has."""
    plan = planned([(past, 1) for past in pasts])
    packer = RowPacker(BLOCK, BLOCKS, 2)
    assert packer.decodes(plan)
    packed = packer.pack(plan, plan.rows + more)
    rows = views(torch.from_numpy(packed.items), packed.shape)
    padding = slice(plan.rows, None)
    assert len(rows.tokens) == len(rows.single) == plan.rows + more
    assert rows.tokens[padding].tolist() == rows.positions[padding].tolist() == [0] * more
    assert set(rows.slots[padding].tolist()) <= {BLOCKS * BLOCK}
    assert set(rows.tables[rows.single.tables[padding].long()].tolist()) <= {BLOCKS}
    assert rows.single.rows.tolist() == list(range(plan.rows + more))
    assert rows.single.positions[: plan.rows].tolist() == pasts
