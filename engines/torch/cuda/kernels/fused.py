"""What lies between the products of a decoder layer, in Triton: norm, rotation, KV write, gate.

Each rounds to the model's data type where transformers' modules do, except the rotation, which
rounds once. Sums run over one row in an order that its length alone decides.
"""

import triton
import triton.language as tl


@triton.jit
def norm_kernel(
    rows, residual, weight, summed, out, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Grid (rows,): RMS norm of a row; with ADD of row + residual, which goes to `summed` too."""
    start = tl.program_id(0).to(tl.int64) * SIZE
    at = tl.arange(0, BLOCK)
    inside = at < SIZE
    dtype = out.dtype.element_ty
    row = tl.load(rows + start + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        row += tl.load(residual + start + at, mask=inside, other=0.0).to(tl.float32)
        row = row.to(dtype)
        tl.store(summed + start + at, row, mask=inside)
        row = row.to(tl.float32)
    scale = 1 / tl.sqrt(tl.sum(row * row, 0) / SIZE + eps)
    normed = (row * scale).to(dtype).to(tl.float32)
    normed *= tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + start + at, normed.to(dtype), mask=inside)


@triton.jit
def gate_kernel(gate_up, out, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Grid (rows, blocks of SIZE): silu of the first half of a row times the second."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < SIZE
    dtype = out.dtype.element_ty
    gate = tl.load(gate_up + row * 2 * SIZE + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * SIZE + SIZE + at, mask=inside, other=0.0).to(tl.float32)
    gated = (gate / (1 + tl.exp(-gate))).to(dtype).to(tl.float32)
    tl.store(out + row * SIZE + at, (gated * up).to(dtype), mask=inside)


@triton.jit
def rotate_kernel(
    qkv, cos, sin, slots, q_weight, k_weight, queries, keys, values, eps,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, BLOCK_SIZE: tl.constexpr, DIM: tl.constexpr,
    D: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """Grid (rows, HEADS + 2 * KV_HEADS): one head of a row of qkv, to where it belongs.

    Queries and keys are normed first where NORM, then rotated by cos and sin [rows, DIM]; queries
    go to [rows, HEADS, DIM], keys and values to the row's slot of the KV blocks.
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, D)
    inside = at < DIM
    dtype = queries.dtype.element_ty
    source = qkv + (row * (HEADS + 2 * KV_HEADS) + head) * DIM
    slot = tl.load(slots + row).to(tl.int64)
    block, offset = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    as_it_is = tl.load(source + at, mask=inside, other=0.0)
    if head >= HEADS + KV_HEADS:
        kv_head = head - HEADS - KV_HEADS
        place = ((block * KV_HEADS + kv_head) * BLOCK_SIZE + offset) * DIM
        tl.store(values + place + at, as_it_is, mask=inside)
    else:
        found = as_it_is.to(tl.float32)
        other = tl.where(at < DIM // 2, at + DIM // 2, at - DIM // 2)
        partner = tl.load(source + other, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            weight = q_weight if head < HEADS else k_weight
            scale = 1 / tl.sqrt(tl.sum(found * found, 0) / DIM + eps)
            own = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
            its = tl.load(weight + other, mask=inside, other=0.0).to(tl.float32)
            found = ((found * scale).to(dtype).to(tl.float32) * own).to(dtype).to(tl.float32)
            partner = ((partner * scale).to(dtype).to(tl.float32) * its).to(dtype).to(tl.float32)
        turned = tl.where(at < DIM // 2, -partner, partner)
        cosine = tl.load(cos + row * DIM + at, mask=inside, other=0.0).to(tl.float32)
        sine = tl.load(sin + row * DIM + at, mask=inside, other=0.0).to(tl.float32)
        rotated = (found * cosine + turned * sine).to(dtype)
        if head < HEADS:
            tl.store(queries + (row * HEADS + head) * DIM + at, rotated, mask=inside)
        else:
            place = ((block * KV_HEADS + head - HEADS) * BLOCK_SIZE + offset) * DIM
            tl.store(keys + place + at, rotated, mask=inside)
