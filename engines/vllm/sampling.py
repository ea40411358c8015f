"""Our requests as calls of vLLM: what can be said of them, and how. Pure.

A choice is one call, or two. vLLM's min_tokens holds back its own idea of the model's end tokens,
too: where they are not all among the stop tokens of a request, those alone are banned by a bias,
in a call of its own, and the next goes on behind it.

Stop tokens are in stop_token_ids, and ignore_eos leaves no other end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from engines.api import Capability, GenerationRequest, Sampling
from engines.errors import InvalidRequest, Unsupported
from engines.self_batching.guide import guide_of
from engines.self_batching.split import held, seed_of
from engines.vllm.features import Features

_PHRASES = "_bad_words_token_ids"  # bad words as tokens; the public field takes texts alone


@dataclass(frozen=True, slots=True)
class Stage:
    """One call for one choice."""

    prompt: list[int]
    parameters: Mapping[str, object]  # of SamplingParams
    guide: Mapping[str, str] | None  # of StructuredOutputsParams
    last: int  # tokens of the choice, in all, that this call may reach
    holds_stops: bool  # no token of it ends the choice


@dataclass(frozen=True, slots=True)
class Writer:
    """Says requests to one engine."""

    features: Features
    vocab_size: int
    ends: frozenset[int]  # the model's end tokens, by its files and by its tokenizer
    grammars: bool = False

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What requests may ask."""
        return frozenset(Capability) - ({Capability.GRAMMAR} if not self.grammars else set())

    def check(self, request: GenerationRequest) -> None:
        """Raise Unsupported for what could only be ignored, or done in another way."""
        sampling = request.sampling
        if request.cache_salt and not self.features.salts:
            raise Unsupported("this vLLM cannot salt its prefix cache", param="cache_salt")
        if sampling.thinking is not None:
            raise Unsupported("this engine keeps no thinking budget", param="thinking")
        phrases = any(len(word) > 1 for word in sampling.bad_words)
        if phrases and _PHRASES not in self.features.sampling:
            raise Unsupported("bad words of several tokens are not supported", param="bad_words")
        goes_on = any(log for log in request.logs)
        if goes_on or self._splits(sampling):
            self._check_memory(sampling, phrases=phrases)
        self._check_bans(sampling)
        if sampling.grammar is not None:
            self._check_grammar(sampling, sampling.grammar, goes_on=goes_on)

    def _check_memory(self, sampling: Sampling, *, phrases: bool) -> None:
        """Refuse what looks at output where some of it is prompt to vLLM."""
        if sampling.presence or sampling.frequency:
            raise Unsupported(
                "presence and frequency penalties can neither be continued nor stand beside "
                "min_tokens without the model's end tokens among the stop tokens",
                param="sampling",
            )
        if phrases:
            raise Unsupported(
                "bad words of several tokens can neither be continued nor stand beside "
                "min_tokens without the model's end tokens among the stop tokens",
                param="bad_words",
            )

    def _check_bans(self, sampling: Sampling) -> None:
        if sampling.allowed is not None:
            banned = {word[0] for word in sampling.bad_words if len(word) == 1}
            if sampling.min_tokens:
                banned |= sampling.stop_tokens
            if not set(self._known(sampling.allowed)) - banned:
                raise InvalidRequest("every allowed token is banned", param="allowed")

    def _check_grammar(self, sampling: Sampling, source: str, *, goes_on: bool) -> None:
        guide = guide_of(source)
        if guide is None or not guide.keys() <= self.features.guides:
            raise Unsupported("vLLM takes one grammar per request", param="grammar")
        if goes_on or held(sampling, 0):
            raise Unsupported(
                "a grammar can be neither continued nor held open (min_tokens)", param="grammar"
            )
        if sampling.allowed is not None or sampling.bad_words:
            raise Unsupported("bans beside a grammar may leave no token", param="grammar")
        if not self.ends <= sampling.stop_tokens:
            raise Unsupported("a grammar ends with the model's end token", param="grammar")

    def stage(self, request: GenerationRequest, choice: int, log: list[int]) -> Stage:
        """The next call for a choice that has said `log`."""
        sampling, said = request.sampling, len(log)
        bound = held(sampling, said)
        splits = bound > 0 and self._splits(sampling)
        last = min(said + bound if splits else math.inf, sampling.max_tokens)
        parameters: dict[str, object] = {
            "max_tokens": int(last) - said,  # its default is 16
            "ignore_eos": True,
            "detokenize": False,
            **_drawing(sampling, seed_of(sampling.seed, choice, said)),
            **_penalties(sampling),
            **self._guides(sampling, banned=sampling.stop_tokens if splits else frozenset()),
        }
        if sampling.stop_tokens and not splits:
            parameters["stop_token_ids"] = self._known(sampling.stop_tokens)
        if bound and not splits:
            parameters["min_tokens"] = min(bound, int(last) - said)
        if sampling.logprobs is not None:
            parameters["logprobs"] = sampling.logprobs
        if sampling.prompt_logprobs is not None and not log:
            parameters["prompt_logprobs"] = sampling.prompt_logprobs
        return Stage(
            prompt=[*request.prompt, *log],
            parameters=parameters,
            guide=None if sampling.grammar is None else guide_of(sampling.grammar),
            last=int(last),
            holds_stops=splits,
        )

    def _splits(self, sampling: Sampling) -> bool:
        return held(sampling, 0) > 0 and not self.ends <= sampling.stop_tokens

    def _guides(self, sampling: Sampling, *, banned: frozenset[int]) -> Mapping[str, object]:
        """Bias, bans and allowed tokens. A ban is a bias of minus infinity."""
        bias = {token: sampling.bias[token] for token in self._known(sampling.bias)}
        single = {word[0] for word in sampling.bad_words if len(word) == 1}
        bias |= dict.fromkeys(self._known(banned | single), -math.inf)
        phrases = [
            list(word)
            for word in sampling.bad_words
            if len(word) > 1 and len(self._known(set(word))) == len(set(word))
        ]
        guides: dict[str, object] = {}
        if bias:
            guides["logit_bias"] = bias
        if phrases:
            guides[_PHRASES] = phrases
        if sampling.allowed is not None:
            guides["allowed_token_ids"] = self._known(sampling.allowed)
        return guides

    def _known(self, tokens: frozenset[int] | set[int] | Mapping[int, float]) -> list[int]:
        return sorted(token for token in tokens if 0 <= token < self.vocab_size)


def _drawing(sampling: Sampling, seed: int) -> Mapping[str, object]:
    if sampling.temperature == 0:
        return {"temperature": 0.0}
    return {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,  # 0 is off there too
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "seed": seed,
    }


def _penalties(sampling: Sampling) -> Mapping[str, object]:
    """Presence and frequency look at its output alone there, too; repetition at the prompt, too."""
    return {
        name: value
        for name, value, neutral in (
            ("repetition_penalty", sampling.repetition, 1.0),
            ("presence_penalty", sampling.presence, 0.0),
            ("frequency_penalty", sampling.frequency, 0.0),
        )
        if value != neutral
    }
