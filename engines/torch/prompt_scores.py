"""Log-probabilities of the prompt's own tokens, for the lanes that ask: gathered chunk by chunk.

The decoder's final hidden states of all rows of a step are at hand anyway; what the head makes of
them is not, and would be large: rows x vocabulary. So the head runs again on the asked rows only, a
few at a time, and of each row only the asked numbers stay.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MoeModelOutputWithPast

from engines.api import TokenLogprobs
from engines.step import LaneStart, StepPlan
from engines.torch.batch import MIN_ROWS
from engines.torch.sampler import descending

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

# Logits at once: 32 MiB in float32, and sorting them takes a few times that.
_LOGITS = 1 << 23


@dataclass(slots=True)
class PromptScores:
    """What is known of one prompt: entry i belongs to its token i + 1."""

    prompt: Sequence[int]
    most: int  # how many of the most likely tokens
    parts: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # as from `scored`

    def read(self) -> list[TokenLogprobs]:
        """Wait for the device."""
        return [
            TokenLogprobs(own, tuple(zip(ids, top, strict=True)))
            for values, top_ids in self.parts
            for (own, *top), ids in zip(values.tolist(), top_ids.tolist(), strict=True)
        ]


class PromptScorer:
    """Scores the prompts of lanes that ask; a lane that comes back with output has been told."""

    def __init__(self, module: nn.Module) -> None:
        self._head = _head_of(module)
        self._lanes: dict[int, PromptScores] = {}
        self._hidden: Tensor | None = None
        self._decoder: nn.Module = module.base_model  # type: ignore[assignment]
        self._hook: RemovableHandle | None = None  # while anybody asks

    def start(self, start: LaneStart) -> None:
        """A sequence takes a lane; one that had not sampled yet starts over."""
        self._lanes.pop(start.lane, None)
        if start.sampling.prompt_logprobs is not None and not start.generated:
            self._lanes[start.lane] = PromptScores(start.prompt, start.sampling.prompt_logprobs)
            self._hook = self._hook or self._decoder.register_forward_hook(self._keep)

    def feed(self, plan: StepPlan) -> dict[int, PromptScores]:
        """Score the rows of a plan that just ran; by sample index, what is to be told now."""
        hidden, self._hidden = self._hidden, None
        if hidden is None:
            return {}
        segments = zip(plan.segment_lanes.tolist(), plan.row_starts[:-1].tolist(),
                       plan.row_starts[1:].tolist(), plan.past.tolist(), strict=True)  # fmt: skip
        for lane, first, last, past in segments:
            if lane in self._lanes:
                self._score(self._lanes[lane], hidden[first:last], past)
        told = dict(self._told(plan))
        if not self._lanes:
            self._unhook()
        return told

    def close(self) -> None:
        """Let go of the model. Idempotent."""
        self._unhook()
        self._head = self._decoder = nn.Module()
        self._lanes.clear()

    def _unhook(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()

    def _score(self, scores: PromptScores, hidden: Tensor, past: int) -> None:
        targets = torch.tensor(scores.prompt[past + 1 : past + 1 + len(hidden)])
        step = max(MIN_ROWS, _LOGITS // int(self._head.config.vocab_size))  # type: ignore[union-attr, arg-type]
        for at in range(0, len(targets), step):
            some = targets[at : at + step].to(hidden.device)
            logits = self._logits(hidden[at : at + len(some)])
            scores.parts.append(scored(logits, some, scores.most))

    def _logits(self, hidden: Tensor) -> Tensor:
        count = len(hidden)
        if count < MIN_ROWS:  # a single row takes other kernels, see batch.py
            hidden = hidden.expand(MIN_ROWS, -1)
        logits: Tensor = self._head(inputs_embeds=hidden[None], use_cache=False).logits
        return logits[0, :count].float()

    def _told(self, plan: StepPlan) -> Iterator[tuple[int, PromptScores]]:
        """Choices that leave a prompt together were computed in one lane, and all are told."""
        segments = np.searchsorted(plan.row_starts, plan.sample_rows, side="right") - 1
        leaders = plan.segment_lanes[segments].tolist()
        for index, leader in enumerate(leaders):
            if leader in self._lanes:
                yield index, self._lanes[leader]
        for lane in {*leaders, *plan.sample_lanes.tolist()}:
            self._lanes.pop(lane, None)

    def _keep(self, _module: nn.Module, _inputs: Any, out: Any) -> None:
        self._hidden = out.last_hidden_state[0]


class _Given(nn.Module):
    """Stands for a decoder that has run: its "embeddings" are its final hidden states."""

    def forward(self, inputs_embeds: torch.FloatTensor, **_: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)


def _head_of(module: nn.Module) -> nn.Module:
    """The model without its decoder: the same head, scale and soft-cap, sharing all weights."""
    head = copy.copy(module)
    prefix: str = module.base_model_prefix  # type: ignore[assignment]
    head._modules = {**module._modules, prefix: _Given()}  # noqa: SLF001
    return head


def scored(logits: Tensor, targets: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Float32 [rows, 1 + most], the target's first, and int64 [rows, most], the most likely ids."""
    scores = torch.log_softmax(logits, dim=-1)
    ids = descending(scores, most)
    return scores.gather(1, torch.cat([targets[:, None], ids], dim=1)), ids
