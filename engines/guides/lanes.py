"""The guides of all lanes of a runner: what may come next in a step, and what must follow it.

    start(LaneStart) -> masks, banned -> (the runner samples) -> advance -> forced, failed

Where no lane is guided, each of these is a look at an empty dictionary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from engines.guides.bits import Row, words
from engines.guides.sequence import SequenceGuide
from engines.step import LaneStart

Int64Array = npt.NDArray[np.int64]


class Grammars(Protocol):
    """Where the matchers of sequences come from."""

    def sequence(self, source: str) -> LLMatcher | None:
        """A matcher of its own for a sequence; None when the grammar is not there."""

    def forget(self, source: str) -> None:
        """The grammar met a limit; do not share what its sequences learned."""


@dataclass(frozen=True, slots=True)
class Masks:
    """Which tokens some samples of a step may be: packed rows, see bits.py."""

    samples: Int64Array
    rows: Row  # int32 [samples, words]


@dataclass(frozen=True, slots=True)
class Steered:
    """What follows from the sampled tokens, by sample index: see StepResult."""

    forced: Mapping[int, Sequence[int]] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)


class LaneGuides:
    """The guides of the running sequences of a runner, over a vocabulary of `vocab` tokens."""

    def __init__(self, vocab: int, grammars: Grammars | None) -> None:
        self._vocab = vocab
        self._grammars = grammars
        self._guides: dict[int, SequenceGuide] = {}

    def start(self, start: LaneStart) -> None:
        """A sequence takes a lane; what it has generated is replayed."""
        sampling = start.sampling
        self._guides.pop(start.lane, None)
        plain = (sampling.grammar, sampling.allowed, sampling.thinking) == (None, None, None)
        if plain and not sampling.bad_words:
            return
        matcher = None
        if sampling.grammar is not None and self._grammars is not None:
            matcher = self._grammars.sequence(sampling.grammar)
        guide = SequenceGuide(sampling, self._vocab, matcher)
        guide.replay(start.generated)
        self._guides[start.lane] = guide

    def masks(self, lanes: Int64Array) -> Masks | None:
        """Which tokens may come next on these lanes; None where all of them may be any."""
        masked = [(sample, guide) for sample, _, guide in self._of(lanes) if guide.masks]
        if not masked:
            return None
        rows = np.empty((len(masked), words(self._vocab)), np.int32)
        for row, (_, guide) in zip(rows, masked, strict=True):
            guide.fill(row)
        return Masks(np.array([sample for sample, _ in masked], np.int64), rows)

    def banned(self, lanes: Int64Array) -> tuple[Int64Array, Int64Array] | None:
        """(samples, tokens) that should not come next; None where there are none."""
        found = [(sample, guide.banned()) for sample, _, guide in self._of(lanes)]
        pairs = [(sample, token) for sample, tokens in found for token in tokens]
        if not pairs:
            return None
        samples, tokens = np.array(pairs, np.int64).T
        return samples, tokens

    def advance(self, lanes: Int64Array, tokens: npt.NDArray[np.integer]) -> Steered:
        """Each of these lanes went on with a token."""
        forced: dict[int, list[int]] = {}
        failed: dict[int, str] = {}
        for sample, lane, guide in self._of(lanes):
            more = guide.take(int(tokens[sample]))
            if guide.failure is not None:
                failed[sample] = guide.failure
                self._drop(lane, guide)
            elif more:
                forced[sample] = more
        return Steered(forced, failed)

    def _of(self, lanes: Int64Array) -> list[tuple[int, int, SequenceGuide]]:
        """(sample, lane, guide) of the guided ones among these lanes."""
        guides = self._guides
        if not guides:
            return []
        numbers = enumerate(lanes.tolist())
        return [(sample, lane, guides[lane]) for sample, lane in numbers if lane in guides]

    def _drop(self, lane: int, guide: SequenceGuide) -> None:
        """A failed sequence goes on without guides until its request is taken away."""
        del self._guides[lane]
        if guide.grammar is not None and self._grammars is not None:
            self._grammars.forget(guide.grammar)
