"""The step runner of decoders that were published to embed: paged like others, without logits."""

import numpy as np
import torch
from torch import Tensor, nn

from engines.step import StepPlan, StepResult
from engines.torch.attention import Paged
from engines.torch.batch import Packer
from engines.torch.kv import KvBlocks
from engines.torch.loading import LoadedModel
from engines.torch.vectors import Pooler, Vectors


class VectorRunner:
    """A StepRunner over a bare decoder, with `num_blocks` KV blocks and one of scratch."""

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
        self._pooler = Pooler(loaded.head)

    def launch(self, plan: StepPlan) -> tuple[int, Vectors]:
        for start in plan.starts:
            self._pooler.start(start)
        with torch.inference_mode():
            vectors = self._pooler.feed(plan, self._hidden(plan))
        return len(plan.sample_lanes), vectors

    def collect(self, ticket: object) -> StepResult:
        match ticket:
            case (int(samples), Vectors() as made):
                vectors, failed = made.read()
                # The one token that a pooled request must ask for.
                return StepResult(np.zeros(samples, np.int32), vectors=vectors, failed=failed)
        raise TypeError(f"not a ticket of this runner: {type(ticket).__name__}")

    def close(self) -> None:
        self._kv = self._module = None

    def _hidden(self, plan: StepPlan) -> Tensor:
        """The final hidden states [rows, hidden] of a plan's rows."""
        if self._kv is None or self._module is None:
            raise RuntimeError("the runner is closed")
        self._kv.copy_blocks(plan.copies)
        batch = self._packer.pack(plan)
        out = self._module(
            input_ids=batch.tokens,
            position_ids=batch.positions,
            use_cache=False,
            paged=Paged(batch, self._kv),
        )
        hidden: Tensor = out.last_hidden_state[0]
        return hidden
