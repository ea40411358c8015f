"""Reads what is new in the output of one call for one choice, and when the choice ends. Pure.

`token_ids` are cumulative. The end is decided by our own reading of the tokens; what the engine
says of it counts only where the tokens do not tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engines.api import Finish, FinishReason, Sampling, TokenLogprobs
from engines.errors import RequestFailed


class Stage(Protocol):
    """One call for one choice, as far as its end depends on it."""

    @property
    def last(self) -> int:
        """Tokens of the choice, in all, that the call may reach."""

    @property
    def holds_stops(self) -> bool:
        """Whether no token of it ends the choice."""


class Output(Protocol):
    """What an engine has told of a sequence, as far as we read it."""

    @property
    def token_ids(self) -> Sequence[int] | None: ...
    @property
    def logprobs(self) -> Sequence[Any] | None: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def stop_reason(self) -> int | str | None: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What has become known. `over`: the call owes nothing more."""

    tokens: list[int]
    logprobs: list[TokenLogprobs] | None
    finish: Finish | None
    over: bool


class Cursor:
    """The place up to which the output of one call has been read."""

    def __init__(self, sampling: Sampling, stage: Stage, said: int) -> None:
        self._sampling = sampling
        self._stage = stage
        self._stops = frozenset() if stage.holds_stops else sampling.stop_tokens
        self._seen = 0  # tokens of this call
        self._said = said  # tokens of the choice in all

    def read(self, output: Output, *, ended: bool) -> Reading:
        """The news. Raises RequestFailed where the engine gave the request up."""
        new = list((output.token_ids or ())[self._seen :])[: self._stage.last - self._said]
        entries = None
        if self._sampling.logprobs is not None:
            entries = list((output.logprobs or ())[self._seen :])
            if ended and len(entries) < len(new):
                raise RequestFailed("the engine left out log-probabilities")
            new = new[: len(entries)]
        stop = next((token for token in new if token in self._stops), None)
        if stop is not None:
            new = new[: new.index(stop) + 1]
        self._advance(len(new))
        finish = self._finish(stop)
        if finish is None and ended and self._said < self._stage.last:
            finish = self._as_told(output, new)
        logprobs = None
        if entries is not None:
            most = self._sampling.logprobs or 0
            logprobs = [token_logprobs(e, t, most) for e, t in zip(entries, new, strict=False)]
        return Reading(new, logprobs, finish, finish is not None or self._said == self._stage.last)

    def _advance(self, tokens: int) -> None:
        self._seen += tokens
        self._said += tokens

    def _finish(self, stop: int | None) -> Finish | None:
        if stop is not None:
            return Finish(FinishReason.STOP, self._said, stop)
        if self._said == self._sampling.max_tokens:
            return Finish(FinishReason.LENGTH, self._said)
        return None

    def _as_told(self, output: Output, new: list[int]) -> Finish:
        """The end of a call whose tokens do not show why; adds the stop token it kept back."""
        if output.finish_reason == "length":  # its own bound came first
            return Finish(FinishReason.LENGTH, self._said)
        if output.finish_reason != "stop":
            raise RequestFailed(f"the engine gave the request up ({output.finish_reason})")
        stop = output.stop_reason
        if stop is None and len(self._stops) == 1:
            (stop,) = self._stops
        if not isinstance(stop, int) or stop not in self._stops:
            raise RequestFailed(f"the engine stopped for a reason it did not tell ({stop})")
        if self._sampling.logprobs is not None:
            raise RequestFailed("the engine left out the log-probability of a stop token")
        new.append(stop)
        self._advance(1)
        return Finish(FinishReason.STOP, self._said, stop)


def token_logprobs(entry: Any, token: int, most: int) -> TokenLogprobs:
    """One position, from token -> Logprob or the token's value alone. Raises RequestFailed."""
    if not isinstance(entry, dict):
        if most:
            raise RequestFailed("the engine left out the most likely tokens")
        return TokenLogprobs(float(entry))
    values = {each: _value(told) for each, told in entry.items()}
    if token not in values:
        raise RequestFailed("the engine left out the log-probability of a token")
    ranked = sorted(values.items(), key=lambda each: (-each[1], each[0]))
    return TokenLogprobs(values[token], tuple(ranked[:most]))


def _value(told: Any) -> float:
    return float(told if isinstance(told, int | float) else told.logprob)
