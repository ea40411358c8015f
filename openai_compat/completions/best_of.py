"""best_of: more choices are generated than told, and those with the likeliest tokens are told."""

import math
from collections.abc import Sequence

from engines.api import TokenEvent
from openai_compat.choice import Choice, Ending, Piece


class ScoredChoice:
    """Implements `render.Teller`: a choice that keeps the mean log-probability of its tokens."""

    __slots__ = ("_choice", "_count", "_sum", "_tells_logprobs")

    def __init__(self, choice: Choice, *, tells_logprobs: bool) -> None:
        self._choice = choice
        self._tells_logprobs = tells_logprobs
        self._sum = 0.0
        self._count = 0

    @property
    def finish(self) -> Ending | None:
        return self._choice.finish

    @property
    def completion_tokens(self) -> int:
        return self._choice.completion_tokens

    @property
    def reasoning_tokens(self) -> int:
        return self._choice.reasoning_tokens

    @property
    def score(self) -> float:
        """The mean over the tokens that are charged; below all numbers where there is none."""
        return self._sum / self._count if self._count else -math.inf

    def text_of(self, event: TokenEvent) -> None:
        """Every event brings log-probabilities: it is never text alone."""

    def feed(self, event: TokenEvent) -> Piece:
        charged = self._choice.completion_tokens
        piece = self._choice.feed(event)
        charged = self._choice.completion_tokens - charged
        told = (event.logprobs or [])[:charged]
        self._sum += sum(entry.logprob for entry in told)
        self._count += len(told)
        if not self._tells_logprobs:
            piece.entries = ()
        return piece


class BestOf:
    """Of each request's choices the `n` best, best first; of equals, the one numbered lower."""

    __slots__ = ("_best_of", "_choices", "_n")

    def __init__(self, n: int, best_of: int, choices: Sequence[ScoredChoice]) -> None:
        self._n = n
        self._best_of = best_of
        self._choices = choices

    def pick(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces to tell, in the order in which they are told."""
        picked: list[Piece] = []
        for first in range(0, len(pieces), self._best_of):
            places = range(first, first + self._best_of)
            best = sorted(places, key=lambda place: -self._choices[place].score)
            picked += [pieces[place] for place in best[: self._n]]
        return picked
