"""What a forward pass on CUDA is made of: the rows of a step, and the kernels that compute them."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from engines.torch.attention import Rule
from engines.torch.kv import KvBlocks

# Rows times query heads per KV head that a ragged tile holds at most; rows of one step are cut into
# tiles on the host, so it knows.
FOLDED = 64


@dataclass(frozen=True, slots=True)
class Tiles:
    """Runs of rows of one sequence each, all int32 [tiles]."""

    rows: Tensor  # the first of each
    counts: Tensor
    positions: Tensor  # of the first row
    tables: Tensor  # where its block table begins, in `Rows.tables`

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one step on the device, all int32; every row is in one tile."""

    tokens: Tensor  # [rows]
    positions: Tensor  # [rows]
    slots: Tensor  # [rows], block * block_size + offset, where each row writes
    single: Tiles  # of one row each
    ragged: Tiles
    tables: Tensor  # [entries], the blocks of all sequences, one table after another


@dataclass(frozen=True, slots=True)
class Heads:
    """The shape of a layer's attention, and how it norms queries and keys before it rotates."""

    queries: int
    kv: int
    dim: int
    eps: float = 0.0
    q_weight: Tensor | None = None  # [dim]; None: not at all
    k_weight: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's part of a step: its rows, and the blocks they read and write."""

    rows: Rows
    kv: KvBlocks
    index: int

    @property
    def cache(self) -> tuple[Tensor, Tensor]:
        """Keys and values as they lie."""
        return self.kv.layer(self.index)

    def write(self, keys: Tensor, values: Tensor) -> None:
        """Store keys and values [rows, kv_heads, dim] in the slots of their rows."""
        slots, size = self.rows.slots.long(), self.kv.block_size
        self.kv.write(self.index, slots // size, slots % size, keys, values)


class Kernels(Protocol):
    """The operations that are ours. Each row's result depends on nothing but its own sequence."""

    def norm(self, rows: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMS norm of rows [..., size]."""

    def add_norm(
        self, rows: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Rows + residual, and its RMS norm."""

    def gate(self, gate_up: Tensor) -> Tensor:
        """Silu of the first half of [..., 2 * size] times the second half."""

    def rotate(
        self, qkv: Tensor, rotation: tuple[Tensor, Tensor], layer: Layer, heads: Heads
    ) -> Tensor:
        """Write the keys and values of qkv [rows, heads, dim] to their slots, keys rotated.

        Returns the rotated queries [rows, query heads, dim]; the rotation is cos and sin, each
        [rows, dim].
        """

    def attend(self, queries: Tensor, layer: Layer, rule: Rule) -> Tensor:
        """Queries [rows, heads, dim] over the blocks of their sequences; contiguous, like them."""
