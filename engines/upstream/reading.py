"""Reads what is new of a choice in the chunks of its stream, and when the choice ends. Pure.

The end is decided by our own reading of the tokens; what the upstream says of it counts only
where the tokens do not tell. Nothing that an upstream says is believed unchecked.
"""

from typing import Annotated

import msgspec

from engines.api import Finish, FinishReason, GenerationRequest, TokenEvent, TokenLogprobs
from engines.errors import EngineDied, RequestFailed
from engines.upstream.config import Kind, UpstreamConfig
from engines.upstream.replies import told

DONE = b"[DONE]"
_ID = "token_id:"


class Nonsense(EngineDied):
    """The upstream said what no working upstream can."""


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None  # vLLM's name
    matched_stop: int | str | None = None  # SGLang's


class _Details(msgspec.Struct):
    cached_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Usage(msgspec.Struct):
    prompt_tokens_details: _Details | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Chunk).decode


class Cursor:
    """The place up to which one choice has been read."""

    def __init__(self, request: GenerationRequest, choice: int, config: UpstreamConfig) -> None:
        self._choice = choice
        self._sampling = request.sampling
        log = request.logs[choice] or ()
        self._prompt = [*request.prompt, *log]
        self._said = len(log)
        self._vocab_size = config.vocab_size
        self._knows_stops = config.kind is not Kind.PLAIN
        self._told_end = False
        self.finish: Finish | None = None
        self.cached = 0

    @property
    def alone(self) -> bool:
        """Whether the choice has ended and the upstream does not know it."""
        stopped = self.finish is not None and self.finish.reason is FinishReason.STOP
        return stopped and not (self._knows_stops or self._told_end)

    def read(self, data: bytes) -> TokenEvent | None:
        """The news of an event. Raises EngineDied, RequestFailed."""
        try:
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Nonsense("the upstream sent an event that is none") from None
        if bytes(chunk.error) != b"null":
            raise EngineDied(f"the upstream failed: {told(data)}")
        details = chunk.usage and chunk.usage.prompt_tokens_details
        if details and details.cached_tokens:
            self.cached = min(details.cached_tokens, len(self._prompt))
        if not chunk.choices:
            return None
        if len(chunk.choices) > 1 or chunk.choices[0].index:
            raise Nonsense("the upstream told of a choice that nobody asked for")
        return self._news(chunk.choices[0])

    def _news(self, choice: _Choice) -> TokenEvent | None:
        tokens = self._tokens(choice)
        if self._told_end or (self.finish is not None and tokens):
            raise Nonsense("the upstream went on after the end")
        self._told_end = choice.finish_reason is not None
        if self.finish is not None:
            return None
        stop = next((token for token in tokens if token in self._sampling.stop_tokens), None)
        if stop is not None:
            del tokens[tokens.index(stop) + 1 :]
        self._said += len(tokens)
        logprobs = self._logprobs(choice, tokens)
        if stop is not None:
            self.finish = Finish(FinishReason.STOP, self._said, stop)
        elif self._said == self._sampling.max_tokens:
            self.finish = Finish(FinishReason.LENGTH, self._said)
        elif choice.finish_reason is not None:
            self.finish = self._as_told(choice, tokens)
        if not tokens and self.finish is None:
            return None
        return TokenEvent(self._choice, tokens, self.cached, logprobs, self.finish)

    def _tokens(self, choice: _Choice) -> list[int]:
        tokens = choice.token_ids
        if tokens is None:
            if choice.text:
                raise Nonsense("the upstream returns no token ids (return_token_ids)")
            tokens = []
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocab_size:
            raise Nonsense(f"a token is outside the vocabulary of {self._vocab_size}")
        if self._said + len(tokens) > self._sampling.max_tokens:
            raise Nonsense("more tokens came than were asked for")
        if choice.prompt_token_ids not in (None, self._prompt):
            raise Nonsense("the upstream reads another prompt than it is given")
        return tokens

    def _as_told(self, choice: _Choice, tokens: list[int]) -> Finish:
        """The end of a choice whose tokens do not show why; adds the stop token it kept back."""
        if choice.finish_reason == "length":  # its own bound came first
            return Finish(FinishReason.LENGTH, self._said)
        if choice.finish_reason != "stop":
            raise EngineDied("the upstream gave the request up")
        stops = self._sampling.stop_tokens
        stop = choice.matched_stop if choice.stop_reason is None else choice.stop_reason
        if stop is None and len(stops) == 1:
            (stop,) = stops
        if not isinstance(stop, int) or stop not in stops:
            raise RequestFailed("the upstream stopped where nobody asked it to")
        if self._sampling.logprobs is not None:
            raise RequestFailed("the upstream left out the log-probability of a stop token")
        tokens.append(stop)
        self._said += 1
        return Finish(FinishReason.STOP, self._said, stop)

    def _logprobs(self, choice: _Choice, tokens: list[int]) -> list[TokenLogprobs] | None:
        most = self._sampling.logprobs
        if most is None:
            return None
        entries = choice.logprobs or _Logprobs([])
        tops = entries.top_logprobs or [] if most else [{}] * len(tokens)
        if min(len(entries.token_logprobs), len(tops)) < len(tokens):
            raise Nonsense("the upstream left out log-probabilities")
        return [
            TokenLogprobs(logprob, self._likeliest(top, most))
            for _, logprob, top in zip(tokens, entries.token_logprobs, tops, strict=False)
        ]

    def _likeliest(self, top: dict[str, float], most: int) -> tuple[tuple[int, float], ...]:
        """The most likely tokens; the sampled one is told beside them, and may be less likely."""
        ranked = sorted(top.items(), key=lambda entry: -entry[1])[:most]
        return tuple([(self._by_id(name), logprob) for name, logprob in ranked])

    def _by_id(self, name: str) -> int:
        number = name.removeprefix(_ID)
        known = name != number and number.isascii() and number.isdecimal() and len(number) < 20
        if not known or int(number) >= self._vocab_size:
            raise Nonsense("a log-probability is of a token that is none")
        return int(number)
