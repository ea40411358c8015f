"""The kernels of `port.py` in plain torch: what the others are compared with, on any device.

It says how many blocks a row has by asking the device, tile by tile: right, but slow.
"""

import torch
from torch import Tensor
from torch.nn.functional import silu

from engines.torch.attention import Rule
from engines.torch.cuda.port import Heads, Layer


class PlainKernels:
    """Kernels as transformers' own modules compute them."""

    def norm(self, rows: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = rows.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
        return weight * scaled.to(rows.dtype)

    def add_norm(
        self, rows: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        summed = residual + rows
        return summed, self.norm(summed, weight, eps)

    def gate(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return silu(gate) * up

    def rotate(
        self, qkv: Tensor, rotation: tuple[Tensor, Tensor], layer: Layer, heads: Heads
    ) -> Tensor:
        sizes = [heads.queries, heads.kv, heads.kv]
        queries, keys, values = torch.split(qkv, sizes, dim=1)
        if heads.q_weight is not None and heads.k_weight is not None:
            queries = self.norm(queries, heads.q_weight, heads.eps)
            keys = self.norm(keys, heads.k_weight, heads.eps)
        layer.write(_rotated(keys, *rotation), values)
        return _rotated(queries, *rotation)

    def attend(self, queries: Tensor, layer: Layer, rule: Rule) -> Tensor:
        out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        for tiles in (layer.rows.single, layer.rows.ragged):
            columns = (tiles.rows, tiles.counts, tiles.positions, tiles.tables)
            for first, count, position, table in zip(
                *(part.tolist() for part in columns), strict=True
            ):
                rows = slice(first, first + count)
                out[rows] = _attended(queries[rows].float(), position, table, layer, rule)
        return out


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = heads.chunk(2, dim=-1)
    return heads * cos[:, None] + torch.cat([-high, low], dim=-1) * sin[:, None]


def _attended(queries: Tensor, position: int, table: int, layer: Layer, rule: Rule) -> Tensor:
    """One tile's queries, the first at `position`: softmax written out, in float32."""
    count, length = len(queries), position + len(queries)
    blocks = layer.rows.tables[table : table + -(-length // layer.kv.block_size)].long()
    keys, values = (
        part[blocks].transpose(1, 2).flatten(0, 1)[:length].float() for part in layer.cache
    )
    shared = queries.shape[1] // keys.shape[1]
    keys, values = (part.repeat_interleave(shared, dim=1) for part in (keys, values))
    scores = torch.einsum("qhd,thd->hqt", queries, keys) * rule.scale
    if rule.softcap is not None:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    at = torch.arange(position, length, device=queries.device)[:, None]
    token = torch.arange(length, device=queries.device)
    seen = token <= at
    if rule.window is not None:
        seen &= token > at - rule.window
    scores = scores.masked_fill(~seen, float("-inf"))
    if rule.sinks is not None:
        sinks = rule.sinks.float()[:, None, None].expand(-1, count, 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :length]
    return torch.einsum("hqt,thd->qhd", weights, values)
