"""The KV blocks of one model as tensors: allocate, copy whole blocks, write rows, gather runs.

One tensor per layer for keys and one for values:

    [num_blocks + 1, kv_heads, block_size, head_dim]

so that one (block, head) *tile* of block_size x head_dim is contiguous, and tile number
`block * kv_heads + head` addresses it in the flat view [tiles, block_size, head_dim]: a gather of
any blocks of any heads is one `index_select`, with no transposition afterwards. The last block is
scratch: padding rows write there, and padded block tables point at it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engines.step import BlockBytes


class KvBlocks:
    """Keys and values of `layers` layers in `num_blocks` blocks (and one scratch block)."""

    def __init__(  # noqa: PLR0913 - a shape has six sides
        self,
        *,
        layers: int,
        num_blocks: int,
        kv_heads: int,
        block_size: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.scratch = num_blocks
        self.kv_heads = kv_heads
        self.block_size = block_size
        self.head_dim = head_dim
        shape = (num_blocks + 1, kv_heads, block_size, head_dim)
        self._keys = [_zeros(shape, dtype, device) for _ in range(layers)]
        self._values = [_zeros(shape, dtype, device) for _ in range(layers)]

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (from, to) in every layer; all reads come before all writes."""
        if not pairs:
            return
        device = self._keys[0].device
        sources, targets = torch.tensor(pairs, dtype=torch.int64).to(device).unbind(1)
        for cache in (*self._keys, *self._values):
            cache[targets] = cache[sources]

    @property
    def block_bytes(self) -> int:
        """Keys and values of one block in all layers."""
        return 2 * len(self._keys) * self._keys[0][0].nbytes

    def save(self, blocks: Sequence[int]) -> list[BlockBytes]:
        """Copies of whole blocks: of each the keys of all layers, then the values.

        On CUDA they are in pinned memory, and there once the stream has come so far. Each is by
        itself in memory: one that is kept must not keep all.
        """
        caches = (*self._keys, *self._values)
        if not caches[0].is_cuda:
            return [_bytes_of(_gathered(caches, block)) for block in blocks]
        copies = []
        for block in blocks:
            there = torch.stack([cache[block] for cache in caches])
            here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
            copies.append(_bytes_of(here.copy_(there, non_blocking=True)))
        return copies

    def restore(self, pairs: Sequence[tuple[int, BlockBytes]]) -> None:
        """Put into blocks what was saved of them, or of others.

        Contents must stay as they are until the stream has come so far.
        """
        caches = (*self._keys, *self._values)
        first = caches[0]
        for block, content in pairs:
            saved = torch.from_numpy(content).to(first.device, non_blocking=True)
            parts = saved.view(first.dtype).view(len(caches), *first.shape[1:])
            for cache, part in zip(caches, parts, strict=True):
                cache[block] = part

    def write(
        self, layer: int, blocks: Tensor, offsets: Tensor, keys: Tensor, values: Tensor
    ) -> None:
        """Store rows [rows, kv_heads, head_dim] at int64 [rows] blocks and offsets."""
        self._keys[layer][blocks, :, offsets] = keys
        self._values[layer][blocks, :, offsets] = values

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer as they lie, for kernels that walk block tables."""
        return self._keys[index], self._values[index]

    def gather(self, layer: int, tiles: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values [count, kv_heads, tokens, head_dim].

        Tiles are int64 [count * kv_heads * blocks], the blocks of one head in order.
        """
        shape = (count, self.kv_heads, -1, self.head_dim)
        flat = (-1, self.block_size, self.head_dim)
        keys = self._keys[layer].view(flat).index_select(0, tiles).view(shape)
        values = self._values[layer].view(flat).index_select(0, tiles).view(shape)
        return keys, values


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, not empty: masked positions are read, and 0 * nan would poison a row.

    On the CPU the pages come zeroed from the system when they are first touched, so a cache costs
    only what is used of it; torch.zeros would write all of it at start (2.6 s for 480 MiB on a
    busy machine).
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    items = math.prod(shape) * dtype.itemsize
    return torch.from_numpy(np.zeros(items, np.uint8)).view(dtype).view(shape)


def _gathered(caches: Sequence[Tensor], block: int) -> Tensor:
    """One block of all layers. Stacking indexed rows would copy each of them three times."""
    content = torch.empty((len(caches), *caches[0].shape[1:]), dtype=caches[0].dtype)
    for place, cache in enumerate(caches):
        content[place] = cache[block]
    return content


def _bytes_of(content: Tensor) -> BlockBytes:
    flat: BlockBytes = content.view(-1).view(torch.uint8).numpy()
    return flat
