"""The torch step runner: copy blocks, one forward pass over all rows of a plan, sample."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from engines.drafts import drafts_of
from engines.guides.lanes import Grammars, LaneGuides
from engines.step import BlockBytes, StepPlan, StepResult
from engines.torch.decoders import Decoder, open_decoder
from engines.torch.loading import LoadedModel
from engines.torch.prompt_scores import PromptScorer, PromptScores
from engines.torch.sampler import Draw, Sampler


@dataclass(frozen=True, slots=True)
class _Ticket:
    draw: Draw
    prompts: dict[int, PromptScores]
    saved: list[BlockBytes]
    restores: Sequence[tuple[int, BlockBytes]]  # held until they are surely copied


class TorchRunner:
    """A StepRunner over one loaded model, on the model's device.

    Holds `num_blocks` KV blocks and the sampling state of `max_lanes` lanes. On the CPU a step is
    computed in `launch`; on CUDA the forward pass is enqueued there, and the sampler's uploads wait
    for it.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        num_blocks: int,
        block_size: int,
        max_lanes: int,
        grammars: Grammars | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self._decoder = decoder or open_decoder(
            loaded, num_blocks=num_blocks, block_size=block_size, max_rows=max_lanes
        )
        vocab = loaded.facts.vocab_size
        guides = LaneGuides(vocab, grammars)
        self._sampler = Sampler(max_lanes=max_lanes, vocab=vocab, guides=guides)
        self._prompts = PromptScorer(loaded.module)
        self._device = loaded.device
        self._on_gpu = loaded.device.type == "cuda"

    @property
    def block_bytes(self) -> int:
        return self._decoder.block_bytes

    def read_blocks(self, blocks: Sequence[int]) -> list[BlockBytes]:
        with torch.inference_mode():
            saved = self._decoder.save(blocks)
        self._settle()
        return saved

    def launch(self, plan: StepPlan) -> _Ticket:
        lanes = plan.sample_lanes.astype(np.int64)
        for start in plan.starts:
            self._sampler.start(start)
            self._prompts.start(start)
        with torch.inference_mode(), self._place():
            saved = self._decoder.save(plan.saves)
            draw = self._sampler.sample(self.logits(plan), lanes, drafts_of(plan))
            return _Ticket(draw, self._prompts.feed(plan), saved, plan.restores)

    def logits(self, plan: StepPlan) -> torch.Tensor:
        """Compute a plan's rows; raw float32 logits [samples, vocab] of its sample rows."""
        with torch.inference_mode(), self._place():
            return self._decoder.logits(plan)

    def collect(self, ticket: object) -> StepResult:
        if not isinstance(ticket, _Ticket):
            raise TypeError(f"not a ticket of this runner: {type(ticket).__name__}")
        with torch.inference_mode(), self._place():
            drawn = self._sampler.finish(ticket.draw)
            prompts = {index: scores.read() for index, scores in ticket.prompts.items()}
            if ticket.saved or ticket.restores:
                self._settle()  # a step may have nothing to sample
        return StepResult(
            drawn.tokens.astype(np.int32),
            drawn.logprobs,
            prompt_logprobs=prompts,
            forced=drawn.steered.forced,
            failed=drawn.steered.failed,
            saved=ticket.saved,
        )

    def _place(self) -> AbstractContextManager[object]:
        """Streams, events and Triton's launches are the current device's, of whichever thread."""
        return torch.cuda.device(self._device) if self._on_gpu else nullcontext()

    def _settle(self) -> None:
        """Wait until blocks that move have moved."""
        if self._on_gpu:
            torch.cuda.current_stream(self._device).synchronize()

    def close(self) -> None:
        self._decoder.close()
        self._prompts.close()
