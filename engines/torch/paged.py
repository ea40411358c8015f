"""A loaded decoder over its KV blocks: one forward pass per plan."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engines.step import BlockBytes, StepPlan
from engines.torch.attention import Paged
from engines.torch.batch import Packer
from engines.torch.kv import KvBlocks
from engines.torch.loading import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor, nn


class PagedDecoder:
    """Holds `num_blocks` KV blocks, and one scratch block for padding, on the model's device."""

    def __init__(self, loaded: LoadedModel, *, num_blocks: int, block_size: int) -> None:
        facts = loaded.facts
        self._module: nn.Module | None = loaded.module
        self._kv: KvBlocks | None = KvBlocks(
            layers=facts.layers,
            num_blocks=num_blocks,
            kv_heads=facts.kv_heads,
            block_size=block_size,
            head_dim=facts.head_dim,
            dtype=loaded.dtype,
            device=loaded.device,
        )
        self._packer = Packer(
            block_size=block_size,
            kv_heads=facts.kv_heads,
            scratch=self._kv.scratch,
            device=loaded.device,
        )

    @property
    def block_bytes(self) -> int:
        """The size of a block's content. Raises RuntimeError once closed."""
        return self._blocks.block_bytes

    def save(self, blocks: Sequence[int]) -> list[BlockBytes]:
        """The contents of blocks: as `KvBlocks.save` says. Raises RuntimeError once closed."""
        return self._blocks.save(blocks)

    def logits(self, plan: StepPlan) -> "Tensor":
        """Float32 logits [samples, vocab] of a plan's sample rows."""
        found: Tensor = self.run(plan, logits=True).logits[0, : len(plan.sample_rows)]
        return found.float()

    def run(self, plan: StepPlan, *, logits: bool) -> Any:
        """The module's output for the rows of a plan; with `logits`, those of its sample rows.

        Copies and restores blocks first, as the plan says. Raises RuntimeError once closed.
        """
        if self._kv is None or self._module is None:
            raise RuntimeError("the runner is closed")
        self._kv.copy_blocks(plan.copies)
        self._kv.restore(plan.restores)
        batch = self._packer.pack(plan)
        kept = {"logits_to_keep": batch.logits_rows} if logits else {}
        return self._module(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            use_cache=False,
            paged=Paged(batch, self._kv),
            **kept,
        )

    @property
    def _blocks(self) -> KvBlocks:
        if self._kv is None:
            raise RuntimeError("the runner is closed")
        return self._kv

    def close(self) -> None:
        """Free the blocks and the weights. Idempotent."""
        self._kv = self._module = None
