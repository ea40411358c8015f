"""What steps of a scheduler have brought: the last one, and all of them together."""

from collections.abc import Mapping
from dataclasses import dataclass

from engines.api import Finish, FinishReason, TokenEvent
from engines.lanes import Lanes
from engines.sequence import Sequence
from engines.step import Int32Array, StepResult
from engines.tables import IntpArray


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step brought: one new token per sampled sequence, and who ended.

    `forced` and `finishes` are by index into the lists, as what `result` says of single samples.
    """

    sequences: list[Sequence]
    tokens: list[int]
    forced: Mapping[int, list[int]]
    finishes: Mapping[int, Finish]
    result: StepResult

    def event(self, index: int) -> TokenEvent:
        """What one of the sequences has to be told."""
        result, sequence = self.result, self.sequences[index]
        logprobs = result.logprobs.get(index)
        return TokenEvent(
            choice=sequence.choice,
            tokens=[self.tokens[index], *self.forced.get(index, ())],
            cached=sequence.cached,
            logprobs=None if logprobs is None else [logprobs],
            finish=self.finishes.get(index),
            prompt_logprobs=result.prompt_logprobs.get(index),
            vector=result.vectors.get(index),
        )


@dataclass(slots=True)
class Counters:
    """Totals since the engine started."""

    steps: int = 0
    preemptions: int = 0
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0
    device_hits: int = 0  # blocks that were in the cache when their sequence was let in


def ended(lanes: Lanes, sampled: IntpArray, tokens: Int32Array) -> dict[int, Finish]:
    """Who of the sampled lanes ends with its new token, by index into them."""
    finishes = {}
    for index in lanes.maybe_ended(sampled, tokens).tolist():
        lane, token = int(sampled[index]), int(tokens[index])
        sequence = lanes.occupant(lane)
        generated = int(lanes.length[lane]) - sequence.prompt_len
        if token in sequence.request.sampling.stop_tokens:
            finishes[index] = Finish(FinishReason.STOP, generated, token)
        elif lanes.length[lane] >= lanes.limit[lane]:
            finishes[index] = Finish(FinishReason.LENGTH, generated)
    return finishes
