"""The messages of one Generate call, put together as the cursor reads them. Pure.

Chunks bring new tokens, `complete` all of them once more with the reason of the end. Every call is
for one sequence, so its index is 0.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engines.errors import RequestFailed

_STOPS = frozenset({"stop", "stop_word"})


class Lie(Exception):  # noqa: N818
    """The server said what no working server can."""


@dataclass(slots=True)
class Answer:
    """What a call has told so far: an `engines.self_batching.cursor.Output`.

    `end`: the token at which the server ends by itself, where it was let; it may not return it.
    """

    call_id: str
    vocab_size: int
    end: int | None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Mapping[int, float] | float] = field(default_factory=list)  # never the longer
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    cached: int = 0
    finished: bool = False

    def take(self, response: Any) -> None:
        """Add a GenerateResponse. Raises Lie, RequestFailed."""
        if self.finished:
            raise Lie("it went on after the end")
        if response.request_id != self.call_id:
            raise Lie(f"it answered {response.request_id!r} where {self.call_id!r} was asked")
        kind = response.WhichOneof("response")
        if kind is None:
            raise Lie("it answered with nothing")
        told = getattr(response, kind)
        if told.sequence_index:
            raise Lie(f"it told of sequence {told.sequence_index}, of 1")
        self.cached = max(self.cached, told.cached_tokens)
        if kind == "chunk":
            self._chunk(told)
        else:
            self._complete(told)

    def _chunk(self, told: Any) -> None:
        scored = len(self.logprobs) == len(self.token_ids)
        self._say(told.token_ids)
        if scored:  # else these are not of the tokens that lack theirs; `complete` has them all
            self._score(told.logprobs)

    def _complete(self, told: Any) -> None:
        said = list(told.output_token_ids)
        both = min(len(said), len(self.token_ids))  # it may have taken the stop token out
        if said[:both] != self.token_ids[:both]:
            raise Lie("its complete answer is not what it told in parts")
        self._say(said[len(self.token_ids) :])
        self._score(told.logprobs[len(self.logprobs) :])
        self.finished = True
        self.finish_reason = "stop" if told.finish_reason in _STOPS else told.finish_reason
        self.stop_reason = self._reason(told)

    def _say(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            if token >= self.vocab_size:
                raise RequestFailed(
                    f"the server said token {token}, outside the vocabulary of {self.vocab_size}"
                )
            self.token_ids.append(token)

    def _score(self, entries: Iterable[Any]) -> None:
        for entry in entries:
            place = len(self.logprobs)
            if place == len(self.token_ids) or entry.token_id != self.token_ids[place]:
                raise Lie("a log-probability is of no token that it said")
            if math.isnan(entry.logprob):
                raise RequestFailed("the engine computed numbers that are none")
            top = {each.token_id: each.logprob for each in entry.top_logprobs}
            self.logprobs.append(top or entry.logprob)

    def _reason(self, told: Any) -> int | str:
        if told.WhichOneof("matched_stop") == "matched_token_id":
            return int(told.matched_token_id)
        return "nothing it was asked for" if self.end is None else self.end
