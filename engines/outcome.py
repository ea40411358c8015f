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

    `more` are tokens behind that one, forced or drafted; it and `finishes` are by index into the
    lists. `samples` tells which of the result's samples each sequence has had; where there is none,
    each had one.
    """

    sequences: list[Sequence]
    tokens: list[int]
    more: Mapping[int, list[int]]
    finishes: Mapping[int, Finish]
    result: StepResult
    lanes: IntpArray
    samples: list[range] | None = None

    @property
    def accepted(self) -> int:
        """How many of its tokens had been guessed."""
        return sum(len(run) - 1 for run in self.samples or ())

    def failure(self, index: int) -> str | None:
        """Why one of the sequences cannot go on."""
        return self.result.failed.get(self._samples(index)[0])

    def event(self, index: int) -> TokenEvent:
        """What one of the sequences has to be told."""
        result, sequence = self.result, self.sequences[index]
        samples = self._samples(index)
        first = samples[0]
        logprobs = [result.logprobs[each] for each in samples if each in result.logprobs]
        return TokenEvent(
            choice=sequence.choice,
            tokens=[self.tokens[index], *self.more.get(index, ())],
            cached=sequence.cached,
            logprobs=logprobs or None,
            finish=self.finishes.get(index),
            prompt_logprobs=result.prompt_logprobs.get(first),
            vector=result.vectors.get(first),
        )

    def _samples(self, index: int) -> range:
        return range(index, index + 1) if self.samples is None else self.samples[index]


@dataclass(slots=True)
class Counters:
    """Totals since the engine started."""

    steps: int = 0
    preemptions: int = 0
    prefix_hit_tokens: int = 0
    prefix_query_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0  # of those drafted
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
