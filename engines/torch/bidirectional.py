"""Attention of every row of a text over all rows of the same text, as transformers calls it.

The texts of a step lie one after another as rows of one batch, without padding, so that products
and norms run over real rows only. Attention alone needs them apart: texts whose length rounds up to
the same multiple of `STRIDE` attend together, padded to it. The shape that a text is padded to
follows from its own length, so its vector does not depend on its batch-mates; and a step of many
lengths takes a few calls per layer instead of one per text (docs/embeddings.md has the figures).
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "penstock_bidirectional"
STRIDE = 16  # rows


@dataclass(frozen=True, slots=True)
class Bunch:
    """Texts padded to one length."""

    rows: Tensor  # int64 [count * length], into the rows of the step; padding is its dummy row
    count: int
    mask: Tensor | None  # bool [count, 1, 1, length], true for rows of the text; None: all are


def bunches(starts: list[int], dummy: int, device: torch.device) -> tuple[Bunch, ...]:
    """The texts whose rows begin at `starts` (the last entry ends the last one), bunched."""
    by_length: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for first, last in pairwise(starts):
        length = -(-(last - first) // STRIDE) * STRIDE
        rows = np.full(length, dummy)
        rows[: last - first] = np.arange(first, last)
        by_length[length].append(rows)
    return tuple(_bunch(np.stack(texts), dummy, device) for texts in by_length.values())


def _bunch(rows: np.ndarray, dummy: int, device: torch.device) -> Bunch:
    real = rows != dummy
    mask = None if real.all() else torch.from_numpy(real[:, None, None]).to(device)
    return Bunch(torch.from_numpy(rows.ravel()).to(device), len(rows), mask)


def install() -> None:
    """Make the name known to transformers. Masks are ours, so its mask builder returns none."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None = None,
    *,
    scaling: float | None = None,
    bunches: tuple[Bunch, ...],
    **_: Any,
) -> tuple[Tensor, None]:
    """Query, key and value are [1, heads, rows, d]. Returns [1, rows, heads, d] and no weights."""
    queries, keys, values = (rows[0].transpose(0, 1) for rows in (query, key, value))
    out = torch.empty_like(queries, memory_format=torch.contiguous_format)
    for bunch in bunches:
        shape = (bunch.count, -1, *queries.shape[1:])
        q, k, v = (
            rows.index_select(0, bunch.rows).view(shape).transpose(1, 2)
            for rows in (queries, keys, values)
        )
        mixed = scaled_dot_product_attention(q, k, v, bunch.mask, scale=scaling)
        out[bunch.rows] = mixed.transpose(1, 2).reshape(-1, *queries.shape[1:])
    return out[None], None
