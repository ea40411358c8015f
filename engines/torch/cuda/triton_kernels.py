"""The kernels of `port.py` by Triton: shapes and grids. Importing this needs Triton."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engines.torch.attention import Rule
from engines.torch.cuda.kernels.attention import decode_kernel, merge_kernel, ragged_kernel
from engines.torch.cuda.kernels.fused import gate_kernel, norm_kernel, rotate_kernel
from engines.torch.cuda.port import FOLDED, Heads, Layer

SPLIT = 128  # tokens that one program scans before another could
SPLITS = 32  # of one row at most; longer rows have larger ones

_PRODUCT = 16  # the least rows of a product
_GATED = 1024
_NORM_WARPS = 8  # one program has a whole row


@dataclass(frozen=True, slots=True)
class TritonKernels:
    """Kernels for sequences of up to `max_context` tokens.

    `programs` are to be there at once, about; a GPU has `2 * its multiprocessors` to do. It decides
    who computes what, and no value.
    """

    max_context: int
    programs: int

    def norm(self, rows: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = rows.contiguous()
        out = torch.empty_like(rows)
        size = rows.shape[-1]
        norm_kernel[(rows.numel() // size,)](
            rows,
            rows,
            weight,
            rows,
            out,
            eps,
            size,
            _power_of_two(size),
            ADD=False,
            num_warps=_NORM_WARPS,
        )
        return out

    def add_norm(
        self, rows: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        rows, residual = rows.contiguous(), residual.contiguous()
        summed, out = torch.empty_like(rows), torch.empty_like(rows)
        size = rows.shape[-1]
        norm_kernel[(rows.numel() // size,)](
            rows,
            residual,
            weight,
            summed,
            out,
            eps,
            size,
            _power_of_two(size),
            ADD=True,
            num_warps=_NORM_WARPS,
        )
        return summed, out

    def gate(self, gate_up: Tensor) -> Tensor:
        size = gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], size)
        block = min(_GATED, _power_of_two(size))
        grid = (out.numel() // size, -(-size // block))
        gate_kernel[grid](gate_up.contiguous(), out, size, block)
        return out

    def rotate(
        self, qkv: Tensor, rotation: tuple[Tensor, Tensor], layer: Layer, heads: Heads
    ) -> Tensor:
        queries = qkv.new_empty(len(qkv), heads.queries, heads.dim)
        cos, sin = (part.contiguous() for part in rotation)
        normed = heads.q_weight is not None
        weights = (heads.q_weight, heads.k_weight) if normed else (cos, cos)  # not read
        rotate_kernel[len(qkv), heads.queries + 2 * heads.kv](
            qkv.contiguous(), cos, sin, layer.rows.slots, *weights, queries, *layer.cache,
            heads.eps, heads.queries, heads.kv, layer.kv.block_size, heads.dim,
            _power_of_two(heads.dim), normed, num_warps=1,
        )  # fmt: skip
        return queries

    def attend(self, queries: Tensor, layer: Layer, rule: Rule) -> Tensor:
        if queries.stride(-1) != 1:
            queries = queries.contiguous()
        out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        if len(layer.rows.single):
            self._decode(queries, layer, rule, out)
        if len(layer.rows.ragged):
            _ragged(queries, layer, rule, out)
        return out

    def _decode(self, queries: Tensor, layer: Layer, rule: Rule, out: Tensor) -> None:
        tiles, heads, dim = layer.rows.single, queries.shape[1], queries.shape[2]
        kv_heads, splits = layer.kv.kv_heads, self._splits
        group = heads // kv_heads
        shape = (len(tiles), heads, splits)
        tops, totals = (queries.new_empty(shape, dtype=torch.float32) for _ in range(2))
        sums = queries.new_empty(*shape, dim, dtype=torch.float32)
        programs = min(splits, max(1, self.programs // (len(tiles) * kv_heads)))
        decode_kernel[len(tiles), kv_heads, programs](
            queries, *layer.cache, layer.rows.tables, tiles.rows, tiles.positions, tiles.tables,
            tops, totals, sums, *_numbers(queries, layer, rule), kv_heads, group,
            layer.kv.block_size, dim, _power_of_two(dim), max(_PRODUCT, _power_of_two(group)),
            _keys(queries), rule.window or 0, rule.softcap is not None, SPLIT, splits,
        )  # fmt: skip
        sinks = out if rule.sinks is None else rule.sinks  # or not read
        merge_kernel[len(tiles), heads](
            out, sinks, tiles.rows, tiles.positions, tops, totals, sums, heads, dim,
            _power_of_two(dim), rule.sinks is not None, SPLIT, splits, _power_of_two(splits),
        )  # fmt: skip

    @property
    def _splits(self) -> int:
        return min(SPLITS, -(-self.max_context // SPLIT))


def _ragged(queries: Tensor, layer: Layer, rule: Rule, out: Tensor) -> None:
    tiles, dim = layer.rows.ragged, queries.shape[2]
    kv_heads = layer.kv.kv_heads
    group = queries.shape[1] // kv_heads
    ragged_kernel[len(tiles), kv_heads](
        queries, *layer.cache, layer.rows.tables, tiles.rows, tiles.counts, tiles.positions,
        tiles.tables, out if rule.sinks is None else rule.sinks, out,
        *_numbers(queries, layer, rule), kv_heads, group, layer.kv.block_size, dim,
        _power_of_two(dim), max(FOLDED, _power_of_two(group)), _keys(queries), rule.window or 0,
        rule.softcap is not None, rule.sinks is not None,
        num_warps=4 if dim * queries.itemsize <= 128 else 8,
    )  # fmt: skip


def _keys(queries: Tensor) -> int:
    """Tokens in one product: more of them spill registers (tests/unit/engines/cuda)."""
    row_bytes = queries.shape[2] * queries.itemsize
    return 64 if row_bytes <= 256 else 32 if row_bytes <= 512 else 16


def _numbers(queries: Tensor, layer: Layer, rule: Rule) -> tuple[int, int, int, float, float]:
    """Strides of rows and heads, items in a block, scale and soft-cap."""
    block = layer.cache[0].stride(0)
    return queries.stride(0), queries.stride(1), block, rule.scale, rule.softcap or 0.0


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()
