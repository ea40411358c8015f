"""Log-probabilities of the prompt's own tokens: their rows are asked of the graph beside samples.

What is asked and told is the torch runner's (engines/torch/prompt_scores.py); here the logits come
with the step, since a lowered graph has no head of its own to run again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engines.api import TokenLogprobs
from engines.openvino.drawing import log_probabilities
from engines.step import Int32Array, LaneStart, StepPlan

Segment = tuple[int, int, int, int]  # lane, first row, end of rows, tokens before


@dataclass(slots=True)
class _Scores:
    """What is known of one prompt: entry i belongs to its token i + 1."""

    prompt: Sequence[int]
    most: int  # how many of the most likely tokens
    known: list[TokenLogprobs] = field(default_factory=list)


class PromptScorer:
    """Scores the prompts of lanes that ask; a lane that comes back with output has been told."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Scores] = {}

    def start(self, start: LaneStart) -> None:
        """A sequence takes a lane; one that had not sampled yet starts over."""
        self._lanes.pop(start.lane, None)
        if start.sampling.prompt_logprobs is not None and not start.generated:
            self._lanes[start.lane] = _Scores(start.prompt, start.sampling.prompt_logprobs)

    def rows(self, plan: StepPlan) -> tuple[Segment, ...]:
        """The segments whose rows' logits are wanted; usually none."""
        if not self._lanes:
            return ()
        return tuple(
            segment
            for segment in zip(
                plan.segment_lanes.tolist(),
                plan.row_starts[:-1].tolist(),
                plan.row_starts[1:].tolist(),
                plan.past.tolist(),
                strict=True,
            )
            if segment[0] in self._lanes
        )

    def feed(self, segments: tuple[Segment, ...], logits: npt.NDArray[np.float32]) -> None:
        """Score the rows of segments from their logits, which lie one after another."""
        at = 0
        for lane, first, end, past in segments:
            scores = self._lanes[lane]
            targets = scores.prompt[past + 1 : past + 1 + end - first]
            scores.known += [
                log_probabilities(row, target, scores.most)
                for row, target in zip(logits[at:], targets, strict=False)
            ]
            at += end - first

    def told(self, plan: StepPlan) -> dict[int, Sequence[TokenLogprobs]]:
        """By sample index, what is to be told now: choices that leave a prompt are told alike."""
        if not self._lanes:
            return {}
        segments = np.searchsorted(plan.row_starts, plan.sample_rows, side="right") - 1
        leaders = plan.segment_lanes[segments].tolist()
        told: dict[int, Sequence[TokenLogprobs]] = {
            index: self._lanes[leader].known
            for index, leader in enumerate(leaders)
            if leader in self._lanes
        }
        for lane in {*leaders, *plan.sample_lanes.tolist()}:
            self._lanes.pop(lane, None)
        return told


def rows_of(plan: StepPlan, segments: tuple[Segment, ...]) -> Int32Array:
    """The rows whose logits a step needs: its samples', then those of whole segments."""
    if not segments:
        return plan.sample_rows
    more = [np.arange(first, end, dtype=np.int32) for _, first, end, _ in segments]
    return np.concatenate([plan.sample_rows, *more])
