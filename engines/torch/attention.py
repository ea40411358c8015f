"""Paged attention as transformers' modelling code calls it.

transformers looks attention up by name and passes unknown keyword arguments of the forward call
through every layer, so the step's batch and our KV blocks arrive as the argument `paged`: no
globals, no patched modules. All rows of the step write first, then attend, group by group (see
batch.py).
Query heads that share a KV head are folded into the query axis, so keys are never repeated.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from engines.torch.batch import Batch, Group
from engines.torch.kv import KvBlocks

NAME = "penstock_paged"


@dataclass(frozen=True, slots=True)
class Paged:
    """What one forward pass hands to every attention layer."""

    batch: Batch
    kv: KvBlocks


@dataclass(frozen=True, slots=True)
class Rule:
    """How one layer weighs its keys."""

    scale: float
    window: int | None = None
    softcap: float | None = None  # scores become softcap * tanh(scores / softcap)
    sinks: Tensor | None = None  # [heads]: a logit per head that takes weight and gives no value


def install() -> None:
    """Make the name known to transformers. Masks are ours, so its mask builder returns none."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, paged_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def paged_attention(  # noqa: PLR0913 - the signature is transformers'
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,  # noqa: ARG001
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    paged: Paged,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend over blocks. Query is [1, heads, rows, d], key and value [1, kv_heads, rows, d].

    Returns [1, rows, heads, d] and no weights.
    """
    batch, kv = paged.batch, paged.kv
    layer: int = module.layer_idx  # type: ignore[assignment] # set by every attention class
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = Rule(scale, sliding_window, softcap, s_aux)
    kv.write(layer, batch.blocks, batch.offsets, key[0].transpose(0, 1), value[0].transpose(0, 1))
    rows = query[0].transpose(0, 1)
    out = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
    for group in batch.groups:
        keys, values = kv.gather(layer, group.tiles, group.count)
        out[group.rows] = _attend(rows[group.rows], keys, values, group, rule)
    return out[None], None


def _attend(rows: Tensor, keys: Tensor, values: Tensor, group: Group, rule: Rule) -> Tensor:
    """Rows [tiles * queries, heads, d] over keys [tiles, kv_heads, tokens, d]; like rows.

    Axes: rows are "(t q) (h g) d" for h KV heads with g query heads each; queries "t h (g q) d".
    """
    tiles, kv_heads, tokens, dim = keys.shape
    shared = rows.shape[1] // kv_heads
    split = rows.view(tiles, group.queries, kv_heads, shared, dim)
    queries = split.permute(0, 2, 3, 1, 4).reshape(tiles, kv_heads, -1, dim)
    mask = group.mask(rule.window).expand(tiles, shared, group.queries, tokens)
    mask = mask.reshape(tiles, 1, -1, tokens)
    if rule.softcap is None and rule.sinks is None:
        out = scaled_dot_product_attention(queries, keys, values, mask, scale=rule.scale)
    else:
        out = _explicit(queries, keys, values, mask, rule)
    split = out.view(tiles, kv_heads, shared, group.queries, dim).permute(0, 3, 1, 2, 4)
    return split.reshape(rows.shape)


def _explicit(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, rule: Rule) -> Tensor:
    """Softmax attention written out, for soft-caps and sinks; softmax in float32."""
    scores = (queries @ keys.transpose(2, 3)).float() * rule.scale
    if rule.softcap is not None:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    scores = scores.masked_fill(~mask, float("-inf"))
    if rule.sinks is None:
        return torch.softmax(scores, dim=-1).to(values.dtype) @ values
    tiles, kv_heads, folded, _ = scores.shape
    per_head = rule.sinks.float().view(1, kv_heads, -1, 1)
    per_row = per_head.expand(tiles, -1, -1, folded // per_head.shape[2])
    scores = torch.cat([scores, per_row.reshape(tiles, kv_heads, folded, 1)], dim=-1)
    return torch.softmax(scores, dim=-1)[..., :-1].to(values.dtype) @ values
