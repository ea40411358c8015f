"""Keys and values of every layer: arrays of ours that the plugin reads and writes in place.

Per layer two arrays [blocks, kv_heads, 32, head_dim] in the plugin's layout, the same as the torch
runner's. The last block is scratch: dummy rows write there. bfloat16 is held as uint16.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from openvino import Shape, Tensor, Type

from engines.openvino.touching import TouchAhead, unreal
from engines.openvino.version import BLOCK_SIZE
from engines.step import BlockBytes

_Array = npt.NDArray[np.generic]
_STORED = {"f32": (np.float32, Type.f32), "bf16": (np.uint16, Type.bf16)}


class KvBlocks:
    """`num_blocks` blocks, and one of scratch, of `layers` layers; `precision` is f32 or bf16."""

    def __init__(
        self, *, layers: int, num_blocks: int, kv_heads: int, head_dim: int, precision: str
    ) -> None:
        self.scratch = num_blocks
        self._type = precision
        kind, _ = _STORED[precision]
        shape = (num_blocks + 1, kv_heads, BLOCK_SIZE, head_dim)
        self._keys = [unreal(shape, kind) for _ in range(layers)]
        self._values = [unreal(shape, kind) for _ in range(layers)]
        self._ahead = TouchAhead(self._caches)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The caches by the names of a graph's inputs, sharing their memory."""
        for kind, caches in (("key", self._keys), ("value", self._values)):
            for layer, cache in enumerate(caches):
                tensor = Tensor(cache, Shape(cache.shape), _STORED[self._type][1])
                yield f"{kind}_cache.{layer}", tensor

    @property
    def block_bytes(self) -> int:
        """Keys and values of one block in all layers."""
        return sum(cache[0].nbytes for cache in self._caches)

    def expect(self, tables: npt.NDArray[np.int32]) -> None:
        """A step uses these blocks, so that those behind them may be next."""
        if len(tables):
            self._ahead.used(int(tables.max()))

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (from, to) in every layer; all reads come before all writes."""
        if pairs:
            sources, targets = map(list, zip(*pairs, strict=True))
            for cache in self._caches:
                cache[targets] = cache[sources]

    def save(self, blocks: Sequence[int]) -> list[BlockBytes]:
        """Copies of whole blocks: of each the keys of all layers, then the values."""
        return [
            np.stack([cache[block] for cache in self._caches]).reshape(-1).view(np.uint8)
            for block in blocks
        ]

    def restore(self, pairs: Sequence[tuple[int, BlockBytes]]) -> None:
        """Put into blocks what was saved of them, or of others."""
        caches = self._caches
        for block, content in pairs:
            parts = content.view(caches[0].dtype).reshape(len(caches), *caches[0].shape[1:])
            for cache, part in zip(caches, parts, strict=True):
                cache[block] = part

    def free(self) -> None:
        """Let go of all memory. Idempotent."""
        self._ahead.close()
        self._keys = self._values = []

    @property
    def _caches(self) -> list[_Array]:
        return [*self._keys, *self._values]
