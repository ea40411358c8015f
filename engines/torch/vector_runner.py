"""The step runner of decoders that were published to embed: paged like others, without logits."""

import numpy as np
import torch

from engines.step import StepPlan, StepResult
from engines.torch.loading import LoadedModel
from engines.torch.paged import PagedDecoder
from engines.torch.vectors import Pooler, Vectors


class VectorRunner:
    """A StepRunner over a bare decoder, with `num_blocks` KV blocks and one of scratch."""

    def __init__(self, loaded: LoadedModel, *, num_blocks: int, block_size: int) -> None:
        self._decoder = PagedDecoder(loaded, num_blocks=num_blocks, block_size=block_size)
        self._pooler = Pooler(loaded.head)

    def launch(self, plan: StepPlan) -> tuple[int, Vectors]:
        for start in plan.starts:
            self._pooler.start(start)
        with torch.inference_mode():
            hidden = self._decoder.run(plan, logits=False).last_hidden_state[0]
            vectors = self._pooler.feed(plan, hidden)
        return len(plan.sample_lanes), vectors

    def collect(self, ticket: object) -> StepResult:
        match ticket:
            case (int(samples), Vectors() as made):
                vectors, failed = made.read()
                # The one token that a pooled request must ask for.
                return StepResult(np.zeros(samples, np.int32), vectors=vectors, failed=failed)
        raise TypeError(f"not a ticket of this runner: {type(ticket).__name__}")

    def close(self) -> None:
        self._decoder.close()
