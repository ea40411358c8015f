"""Our Triton kernels against plain torch: in Triton's interpreter, or on a GPU where one is.

The interpreter reads bfloat16 as integers in a product, so here it is float32 and float16; that the
kernels compile for bfloat16 is shown by test_triton_compiles.py.
"""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.torch.attention import Rule
from engines.torch.cuda.packing import RowPacker, views
from engines.torch.cuda.plain import PlainKernels
from engines.torch.cuda.port import Heads, Layer
from engines.torch.kv import KvBlocks
from tests.support.plans import Driver, Run

pytestmark = pytest.mark.triton
pytest.importorskip("triton", reason="needs penstock[cuda]; `make test-triton` has it")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":  # noqa: TID251
    pytest.skip("no GPU, and TRITON_INTERPRET is not 1", allow_module_level=True)

from engines.torch.cuda.triton_kernels import TritonKernels  # noqa: E402 - after the check

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
TYPES = (torch.float32, torch.float16) if DEVICE.type == "cpu" else tuple(TOLERANCE)
CONTEXT, BLOCKS = 700, 500
PLAIN = PlainKernels()


def kernels(programs=4, context=CONTEXT):
    return TritonKernels(context, programs)


def layer(runs, *, group, kv_heads, dim, block_size, dtype, seed=0):  # the shape of a step
    """Sequences of (tokens before, rows of the step) over shuffled blocks of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    kv = KvBlocks(
        layers=1, num_blocks=BLOCKS, kv_heads=kv_heads, block_size=block_size, head_dim=dim,
        dtype=dtype, device=DEVICE,
    )  # fmt: skip
    for part in kv.layer(0):
        part.copy_(torch.randn(part.shape, generator=generator))
    drive = Driver(None, num_blocks=BLOCKS, block_size=block_size, seed=seed)
    steps = []
    for lane, (past, rows) in enumerate(runs):
        seq = drive.start(lane, [3] * (past + rows))
        seq.computed = past
        steps.append(Run(seq, rows))
    packed = RowPacker(block_size, BLOCKS, group).pack(drive.plan(steps))
    rows = views(torch.from_numpy(packed.items).to(DEVICE), packed.shape)
    return Layer(rows, kv, 0)


def normal(*shape, dtype, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


@settings(max_examples=25, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=4),
    kv_heads=st.sampled_from([1, 2, 3]),
    group=st.sampled_from([1, 2, 3, 4, 7, 20]),
    dim=st.sampled_from([16, 24, 32, 80]),
    block_size=st.sampled_from([4, 5, 16, 32]),
    window=st.sampled_from([None, 1, 20, 100]),
    softcap=st.sampled_from([None, 5.0]),
    with_sinks=st.booleans(),
    dtype=st.sampled_from(TYPES),
    seed=st.integers(0, 1 << 30),
)
def test_attention_is_what_plain_torch_says(  # noqa: PLR0917 - a step has many sides
    runs, kv_heads, group, dim, block_size, window, softcap, with_sinks, dtype, seed
):
    """Decoding rows and chunks, any tables, lengths, heads, windows, soft-caps and sinks."""
    step = layer(runs, group=group, kv_heads=kv_heads, dim=dim, block_size=block_size,
                 dtype=dtype, seed=seed)  # fmt: skip
    heads = kv_heads * group
    queries = normal(len(step.rows.tokens), heads, dim, dtype=dtype, seed=seed)
    sinks = normal(heads, dtype=torch.float32, seed=seed) if with_sinks else None
    rule = Rule(dim**-0.5, window, softcap, sinks)
    found = kernels().attend(queries, step, rule).float()
    truth = PLAIN.attend(queries, step, rule).float()
    torch.testing.assert_close(found, truth, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("context", [40, 700, 5000])
def test_splits_grow_with_what_is_to_be_split(context):
    """One split, several, and more tokens than the largest number of splits of the least size."""
    step = layer([(context - 1, 1)], group=2, kv_heads=1, dim=16, block_size=32,
                 dtype=torch.float32)  # fmt: skip
    queries = normal(1, 2, 16, dtype=torch.float32)
    rule = Rule(0.25)
    found = kernels(context=context).attend(queries, step, rule)
    torch.testing.assert_close(found, PLAIN.attend(queries, step, rule), rtol=0, atol=3e-6)


def test_a_row_does_not_depend_on_the_batch():
    """Bit for bit: alone, beside others, and by other numbers of programs."""
    shape = {"group": 3, "kv_heads": 2, "dim": 32, "block_size": 16, "dtype": torch.float32}
    mates = [(0, 1), (290, 1), (12, 30), (600, 1)]
    rule = Rule(32**-0.5, 200)
    step = layer([(450, 1), *mates], **shape)
    queries = normal(len(step.rows.tokens), 6, 32, dtype=torch.float32)
    alone = layer([(450, 1)], **shape)
    for mine, its in zip(alone.cache, step.cache, strict=True):
        mine.copy_(its)  # blocks are handed out in one order: the first sequence's are the same
    truth = kernels(1).attend(queries[:1], alone, rule)
    for programs in (1, 3, 64, 1000):
        assert torch.equal(kernels(programs).attend(queries, step, rule)[:1], truth)


def test_a_row_of_a_chunk_does_not_depend_on_the_chunk():
    """The same rows in one tile, or in others: the same bits."""
    shape = {"group": 4, "kv_heads": 1, "dim": 16, "block_size": 8, "dtype": torch.float32}
    whole, part = layer([(60, 40)], **shape), layer([(67, 33)], **shape)
    queries = normal(40, 4, 16, dtype=torch.float32)
    rule = Rule(0.25, 50)
    ours = kernels()
    assert torch.equal(ours.attend(queries, whole, rule)[7:], ours.attend(queries[7:], part, rule))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("size", [16, 96, 1000])
def test_norms_and_gates_are_transformers(dtype, size):
    """RMS norm, with and without a residual, and silu times up."""
    ours = kernels()
    rows, other = (normal(1, 5, size, dtype=dtype, seed=seed) for seed in (1, 2))
    weight = normal(size, dtype=dtype, seed=3)
    close = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
    torch.testing.assert_close(
        ours.norm(rows, weight, 1e-5), PLAIN.norm(rows, weight, 1e-5), **close
    )
    torch.testing.assert_close(
        ours.add_norm(rows, other, weight, 1e-5), PLAIN.add_norm(rows, other, weight, 1e-5), **close
    )
    both = torch.cat([rows, other], dim=-1)
    torch.testing.assert_close(ours.gate(both), PLAIN.gate(both), **close)


@settings(max_examples=10, deadline=None)
@given(
    kv_heads=st.sampled_from([1, 2]),
    group=st.sampled_from([1, 3, 4]),
    dim=st.sampled_from([16, 24, 80]),
    block_size=st.sampled_from([4, 5, 32]),
    normed=st.booleans(),
    dtype=st.sampled_from(TYPES),
)
def test_rotation_writes_what_plain_torch_writes(kv_heads, group, dim, block_size, normed, dtype):
    """Queries returned; keys and values in their slots, and no other slot touched."""
    runs, heads = [(30, 1), (7, 5)], kv_heads * group
    shape = {"group": group, "kv_heads": kv_heads, "dim": dim, "block_size": block_size,
             "dtype": dtype}  # fmt: skip
    ours, plain = layer(runs, **shape), layer(runs, **shape)
    qkv = normal(6, heads + 2 * kv_heads, dim, dtype=dtype)
    angles = torch.from_numpy(np.random.default_rng(1).normal(size=(6, dim // 2))).repeat(1, 2)
    rotation = tuple(part.to(DEVICE, dtype) for part in (angles.cos(), angles.sin()))
    weights = [normal(dim, dtype=dtype, seed=seed) for seed in (4, 5)] if normed else [None] * 2
    shape = Heads(heads, kv_heads, dim, 1e-6, *weights)
    found = kernels().rotate(qkv, rotation, ours, shape)
    truth = PLAIN.rotate(qkv, rotation, plain, shape)
    close = {"rtol": 0, "atol": 16 * torch.finfo(dtype).eps}
    torch.testing.assert_close(found, truth, **close)
    torch.testing.assert_close(ours.cache, plain.cache, **close)
