"""All that guides one sequence, as one: which tokens may come, must come, and should not.

Where guides disagree: the grammar's end wins over the allowed tokens, since nothing else is left to
say; the thinking budget waits for a moment at which the others let reasoning end (a grammar does
not within a character); anything else that leaves no token is this sequence's failure.
"""

from collections.abc import Sequence

from llguidance import LLMatcher

from engines.api import Sampling
from engines.grammar.bounds import reason
from engines.guides.bits import Row, holds, only, row_of
from engines.guides.phrases import BadWords
from engines.guides.thinking import Thinking

_EVERY_TOKEN = -1


class SequenceGuide:
    """The guides of one sequence. `failure` says why it cannot go on, once it cannot."""

    def __init__(self, sampling: Sampling, vocab: int, matcher: LLMatcher | None) -> None:
        allowed, words, budget = sampling.allowed, sampling.bad_words, sampling.thinking
        self.grammar = sampling.grammar
        lost = sampling.grammar is not None and matcher is None
        self.failure: str | None = "its grammar is not there" if lost else None
        self._matcher = matcher
        self._allowed = None if allowed is None else row_of(allowed, vocab)
        self._words = BadWords(words) if words else None
        self._thinking = None if budget is None else Thinking(budget)
        self._stops = sampling.stop_tokens
        # A forced token was never drawn from a distribution, so there is nothing to report of it.
        self._forces = matcher is not None and sampling.logprobs is None

    @property
    def masks(self) -> bool:
        """Whether not every token may come next."""
        if self._matcher is not None or self._allowed is not None:
            return True
        return self._thinking is not None and self._thinking.wants is not None

    def fill(self, row: Row) -> None:
        """Write the tokens that may come next; all of them once there is a failure."""
        row[:] = _EVERY_TOKEN
        if self._matcher is not None:
            self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
            self._check(self._matcher)
        if self._allowed is not None:
            self._narrow(row, self._allowed)
        wanted = None if self._thinking is None else self._thinking.wants
        if wanted is not None and holds(row, wanted):
            only(row, wanted)
        if self.failure is not None:
            row[:] = _EVERY_TOKEN

    def banned(self) -> list[int]:
        """What should not come next, unless nothing else may."""
        return [] if self._words is None else self._words.banned()

    def take(self, token: int) -> list[int]:
        """Go on with a token that was sampled; returns those that must follow it, taken as well."""
        if self.failure is None:
            self._take(token)
        if not self._forces or self.failure is not None or token in self._stops:
            return []
        return self._take_forced()

    def replay(self, tokens: Sequence[int]) -> None:
        """Go on with what the sequence has said before; what it forced is part of it.

        A log may end within forced tokens: the matcher's mask then leaves only the next of them.
        """
        for token in tokens:
            self._take(token)

    def _take(self, token: int) -> None:
        if self._words is not None:
            self._words.take(token)
        if self._thinking is not None:
            self._thinking.take(token)
        if self._matcher is not None and token not in self._stops:
            self._matcher.consume_token(token)
            self._check(self._matcher)

    def _take_forced(self) -> list[int]:
        """What the grammar forces, as far as no other guide, and no stop token, stands against."""
        taken: list[int] = []
        for token in () if self._matcher is None else self._matcher.compute_ff_tokens():
            if token in self._stops or not self._permits(token) or self.failure is not None:
                break
            self._take(token)
            taken.append(token)
        return taken

    def _permits(self, token: int) -> bool:
        wanted = None if self._thinking is None else self._thinking.wants
        return wanted in (None, token) and (self._allowed is None or holds(self._allowed, token))

    def _narrow(self, row: Row, allowed: Row) -> None:
        both = row & allowed
        if both.any():
            row[:] = both
        elif self._matcher is None or not self._matcher.is_stopped():
            self.failure = "no token is both among the allowed ones and possible in its grammar"

    def _check(self, matcher: LLMatcher) -> None:
        if matcher.is_error():
            self.failure = f"the grammar cannot go on: {reason(matcher.get_error())}"
