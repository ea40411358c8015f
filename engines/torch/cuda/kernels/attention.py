"""Paged attention in Triton, over the block tables of a step and the KV blocks as they lie.

A *tile* is a run of rows of one sequence: its first row, how many, the position of the first, and
where its block table begins. The query heads that share a KV head are folded into the rows of one
product (row m is query m // GROUP, head m % GROUP), so keys are read once for all of them.

    decode_kernel   tiles of one row. Keys are cut into splits; each is scanned by itself, and
    merge_kernel    puts a row's splits together, in their order.
    ragged_kernel   tiles of several rows, scanned at once.

Where a split begins follows from the length of its own sequence, and how many programs share the
splits of a row (grid axis 2) changes who computes one, never its value: attention of a row does not
depend on the batch. A key tile that a row may not see leaves its sums as they are, bit for bit, so
neither does it depend on the rows that share its tile.

KV blocks are [blocks, kv_heads, BLOCK_SIZE, DIM] (kv.py). Scores are in base 2 logarithms.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
UNSEEN = tl.constexpr(float("-inf"))


@triton.jit
def _scores(query, key, scale, softcap, SOFTCAP: tl.constexpr):
    """Float32 [M, N] of query [M, D] and key [N, D], soft-capped, in base 2."""
    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
    if SOFTCAP:
        # tanh, by exp alone; it is right at both infinities.
        scores = softcap * (1 - 2 / (tl.exp(2 * scores / softcap) + 1))
    return scores * LOG2E


@triton.jit
def _scan(
    query, last_seen, low, high, keys, values, table, block_stride, scale, softcap,
    BLOCK_SIZE: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Query [M, D] over tokens low..high: highest score [M], sum of weights [M], and of values.

    Row m sees tokens up to last_seen[m] and, with a window, the WINDOW - 1 before that.
    """
    dim = tl.arange(0, D)
    top = tl.full([M], UNSEEN, tl.float32)
    total = tl.zeros([M], tl.float32)
    mixed = tl.zeros([M, D], tl.float32)
    for start in range(low, high, N):
        token = start + tl.arange(0, N)
        there = token < high
        block = tl.load(table + token // BLOCK_SIZE, mask=there, other=0).to(tl.int64)
        place = block * block_stride + (token % BLOCK_SIZE) * DIM
        inside = there[:, None] & (dim < DIM)[None, :]
        key = tl.load(keys + place[:, None] + dim[None, :], mask=inside, other=0.0)
        scores = _scores(query, key, scale, softcap, SOFTCAP)
        seen = there[None, :] & (token[None, :] <= last_seen[:, None])
        if WINDOW > 0:
            seen = seen & (token[None, :] > last_seen[:, None] - WINDOW)
        scores = tl.where(seen, scores, UNSEEN)
        highest = tl.maximum(top, tl.max(scores, 1))
        base = tl.where(highest == UNSEEN, 0.0, highest)  # else -inf less -inf, which is nan
        weights = tl.exp2(scores - base[:, None])
        shrunk = tl.exp2(top - base)
        total = total * shrunk + tl.sum(weights, 1)
        value = tl.load(values + place[:, None] + dim[None, :], mask=inside, other=0.0)
        product = tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        mixed = mixed * shrunk[:, None] + product
        top = highest
    return top, total, mixed


@triton.jit
def _first_token(position, WINDOW: tl.constexpr, N: tl.constexpr):
    """Where scanning begins for a row at a position: on a boundary of key tiles."""
    if WINDOW > 0:
        return tl.maximum(position + 1 - WINDOW, 0) // N * N
    return 0


@triton.jit
def _split_size(length, SPLIT: tl.constexpr, SPLITS: tl.constexpr):
    """Tokens per split: SPLIT, or the multiple of it that needs at most SPLITS of them."""
    return tl.maximum(tl.cdiv(tl.cdiv(length, SPLITS), SPLIT), 1) * SPLIT


@triton.jit
def decode_kernel(
    queries, keys, values, tables, tile_rows, tile_positions, tile_tables, tops, totals, sums,
    row_stride, head_stride, block_stride, scale, softcap,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, BLOCK_SIZE: tl.constexpr, DIM: tl.constexpr,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, SPLIT: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, KV_HEADS, programs): splits p, p + programs, ... of one row and KV head.

    Writes tops and totals [tiles, heads, SPLITS] and sums [tiles, heads, SPLITS, DIM].
    """
    tile, head = tl.program_id(0), tl.program_id(1)
    row = tl.load(tile_rows + tile)
    position = tl.load(tile_positions + tile)
    table = tables + tl.load(tile_tables + tile)
    shared, dim = tl.arange(0, M), tl.arange(0, D)
    heads = head * GROUP + shared
    live = shared < GROUP
    within = live[:, None] & (dim < DIM)[None, :]
    at = row.to(tl.int64) * row_stride + heads * head_stride
    query = tl.load(queries + at[:, None] + dim[None, :], mask=within, other=0.0)
    last_seen = tl.full([M], 0, tl.int32) + position
    size = _split_size(position + 1, SPLIT, SPLITS)
    first = _first_token(position, WINDOW, N)
    for split in range(tl.program_id(2), tl.cdiv(position + 1, size), tl.num_programs(2)):
        low = tl.maximum(split * size, first)
        high = tl.minimum(split * size + size, position + 1)
        top, total, mixed = _scan(
            query, last_seen, low, high, keys + head * BLOCK_SIZE * DIM,
            values + head * BLOCK_SIZE * DIM, table, block_stride, scale, softcap,
            BLOCK_SIZE, DIM, D, M, N, WINDOW, SOFTCAP,
        )  # fmt: skip
        part = (tile.to(tl.int64) * KV_HEADS * GROUP + heads) * SPLITS + split
        tl.store(tops + part, top, mask=live)
        tl.store(totals + part, total, mask=live)
        tl.store(sums + part[:, None] * DIM + dim[None, :], mixed, mask=within)


@triton.jit
def merge_kernel(
    out, sinks, tile_rows, tile_positions, tops, totals, sums,
    HEADS: tl.constexpr, DIM: tl.constexpr, D: tl.constexpr, SINKS: tl.constexpr,
    SPLIT: tl.constexpr, SPLITS: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, HEADS): the splits of one row and head, into out [rows, HEADS, DIM]."""
    tile, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(tile_positions + tile) + 1
    split, dim = tl.arange(0, S), tl.arange(0, D)
    there = split < tl.cdiv(length, _split_size(length, SPLIT, SPLITS))
    part = (tile.to(tl.int64) * HEADS + head) * SPLITS + split
    top = tl.load(tops + part, mask=there, other=UNSEEN)
    highest = tl.max(top, 0)
    if SINKS:
        sink = tl.load(sinks + head).to(tl.float32) * LOG2E
        highest = tl.maximum(highest, sink)
    weights = tl.exp2(top - highest)
    total = tl.sum(weights * tl.load(totals + part, mask=there, other=0.0), 0)
    if SINKS:
        total += tl.exp2(sink - highest)
    inside = there[:, None] & (dim < DIM)[None, :]
    mixed = tl.load(sums + part[:, None] * DIM + dim[None, :], mask=inside, other=0.0)
    found = tl.sum(mixed * weights[:, None], 0) / total
    place = (tl.load(tile_rows + tile).to(tl.int64) * HEADS + head) * DIM
    tl.store(out + place + dim, found.to(out.dtype.element_ty), mask=dim < DIM)


@triton.jit
def ragged_kernel(
    queries, keys, values, tables, tile_rows, tile_counts, tile_positions, tile_tables, sinks, out,
    row_stride, head_stride, block_stride, scale, softcap,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, BLOCK_SIZE: tl.constexpr, DIM: tl.constexpr,
    D: tl.constexpr, M: tl.constexpr, N: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    """Grid (tiles, KV_HEADS): up to M // GROUP rows of one sequence, one KV head."""
    tile, head = tl.program_id(0), tl.program_id(1)
    count = tl.load(tile_counts + tile)
    position = tl.load(tile_positions + tile)
    table = tables + tl.load(tile_tables + tile)
    folded, dim = tl.arange(0, M), tl.arange(0, D)
    nth, heads = folded // GROUP, head * GROUP + folded % GROUP
    within = (nth < count)[:, None] & (dim < DIM)[None, :]
    rows = (tl.load(tile_rows + tile) + nth).to(tl.int64)
    at = rows * row_stride + heads * head_stride
    query = tl.load(queries + at[:, None] + dim[None, :], mask=within, other=0.0)
    top, total, mixed = _scan(
        query, position + nth, _first_token(position, WINDOW, N), position + count,
        keys + head * BLOCK_SIZE * DIM, values + head * BLOCK_SIZE * DIM, table, block_stride,
        scale, softcap, BLOCK_SIZE, DIM, D, M, N, WINDOW, SOFTCAP,
    )  # fmt: skip
    if SINKS:
        sink = tl.load(sinks + heads).to(tl.float32) * LOG2E
        highest = tl.maximum(top, sink)
        shrunk = tl.exp2(top - highest)
        total = total * shrunk + tl.exp2(sink - highest)
        mixed = mixed * shrunk[:, None]
    found = mixed / tl.where(total == 0.0, 1.0, total)[:, None]  # rows beyond count may see nothing
    place = (rows * (KV_HEADS * GROUP) + heads) * DIM
    tl.store(out + place[:, None] + dim[None, :], found.to(out.dtype.element_ty), mask=within)
