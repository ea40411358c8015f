"""Our requests as calls of TensorRT-LLM: what can be said of them, and how. Pure.

A choice is one call, or two: the engine holds back only one end token below min_tokens, so until
then the stop tokens are banned by a bias, in a call of its own, and the next goes on behind it.

Stop tokens go in stop_token_ids and are asked back: ignore_eos would drop them with the end token,
and an end token is not returned. end_id is therefore -1, which no token is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engines.api import Capability, GenerationRequest, Sampling
from engines.errors import Unsupported
from engines.self_batching.guide import guide_of
from engines.self_batching.split import held, seed_of
from engines.trtllm.features import Features
from engines.trtllm.special import PLAIN, Special, Specials


@dataclass(frozen=True, slots=True)
class Stage:
    """One call for one choice."""

    prompt: list[int]
    parameters: Mapping[str, object]  # of SamplingParams
    bias: NDArray[np.float32] | None  # embedding_bias
    guide: Mapping[str, str] | None  # of GuidedDecodingParams
    last: int  # tokens of the choice, in all, that this call may reach
    holds_stops: bool  # no token of it ends the choice
    special: Special = PLAIN


@dataclass(frozen=True, slots=True)
class Writer:
    """Says requests to one engine."""

    features: Features
    vocab_size: int
    ends: frozenset[int]  # tokens that a finished grammar allows
    applies: frozenset[str] = frozenset()  # of config.SAMPLER_PARTS
    grammars: bool = False
    thinks: bool = False  # a reasoning parser is configured, without which no budget is kept
    specials: Specials = field(default_factory=Specials)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What requests may ask. Prompt log-probabilities are not among it."""
        can = {
            Capability.SAMPLING, Capability.LOGIT_BIAS, Capability.LOGPROBS, Capability.GUIDES,
        }  # fmt: skip
        # Without prompt_ignore_length, presence and frequency would count the prompt.
        if "penalties" in self.applies and "prompt_ignore_length" in self.features.sampling:
            can.add(Capability.PENALTIES)
        if self.grammars:
            can.add(Capability.GRAMMAR)
        return frozenset(can)

    def check(self, request: GenerationRequest) -> None:
        """Raise Unsupported for what could only be ignored, or done in another way."""
        sampling = request.sampling
        self.specials.read(request)
        if request.cache_salt and "cache_salt" not in self.features.call:
            raise Unsupported("this TensorRT-LLM cannot salt its prefix cache", param="cache_salt")
        if sampling.min_p and "min_p" not in self.applies:
            raise Unsupported(
                "min_p is not known to be honoured (penstock.sampler_applies)", param="min_p"
            )
        if any(len(word) > 1 for word in sampling.bad_words):
            raise Unsupported("bad words of several tokens are not supported", param="bad_words")
        goes_on = any(log for log in request.logs)
        if sampling.thinking is not None:
            if not self.thinks or "thinking_token_budget" not in self.features.sampling:
                raise Unsupported("this engine keeps no thinking budget", param="thinking")
            if goes_on or held(sampling, 0):
                raise Unsupported("a thinking budget cannot be continued", param="thinking")
        if sampling.grammar is not None:
            self._check_grammar(sampling, sampling.grammar, goes_on=goes_on)

    def _check_grammar(self, sampling: Sampling, source: str, *, goes_on: bool) -> None:
        if guide_of(source) is None:
            raise Unsupported("TensorRT-LLM takes one grammar per request", param="grammar")
        if goes_on or held(sampling, 0):
            raise Unsupported(
                "a grammar can be neither continued nor held open (min_tokens)", param="grammar"
            )
        if sampling.allowed is not None or sampling.bad_words:
            raise Unsupported("bans beside a grammar may leave no token", param="grammar")
        if not self.ends <= sampling.stop_tokens:
            raise Unsupported("a grammar ends with the model's end token", param="grammar")

    def stage(self, request: GenerationRequest, choice: int, log: Sequence[int]) -> Stage:
        """The next call for a choice that has said `log`."""
        sampling, said = request.sampling, len(log)
        bound = held(sampling, said)
        last = min(said + bound if bound else math.inf, sampling.max_tokens)
        stops = sorted(sampling.stop_tokens)
        parameters: dict[str, object] = {
            "max_tokens": int(last) - said,  # its default is 32
            "end_id": -1,
            "detokenize": False,
            "add_special_tokens": False,
            **_drawing(sampling, seed_of(sampling.seed, choice, said)),
            **_penalties(sampling, len(request.prompt)),
        }
        if stops and not bound:
            parameters |= {"stop_token_ids": stops, "include_stop_str_in_output": True}
        if sampling.logprobs is not None:
            parameters["logprobs"] = max(1, sampling.logprobs)  # 0 is none for some versions
        if sampling.thinking is not None:
            parameters["thinking_token_budget"] = sampling.thinking.tokens
        return Stage(
            prompt=[*request.prompt, *log],
            parameters=parameters,
            bias=self._bias(sampling, stops if bound else ()),
            guide=None if sampling.grammar is None else guide_of(sampling.grammar),
            last=int(last),
            special=self.specials.read(request),
            holds_stops=bound > 0,
        )

    def _bias(self, sampling: Sampling, banned: Sequence[int]) -> NDArray[np.float32] | None:
        bans = [*banned, *(word[0] for word in sampling.bad_words)]
        if not (sampling.bias or bans or sampling.allowed is not None):
            return None
        outside = -math.inf if sampling.allowed is not None else 0.0
        bias = np.full(self.vocab_size, outside, dtype=np.float32)
        bias[self._known(sampling.allowed or ())] = 0.0
        for token in self._known(sampling.bias):
            bias[token] += sampling.bias[token]
        bias[self._known(bans)] = -math.inf
        return bias

    def _known(self, tokens: Sequence[int] | frozenset[int] | Mapping[int, float]) -> list[int]:
        return [token for token in tokens if 0 <= token < self.vocab_size]


def _drawing(sampling: Sampling, seed: int) -> dict[str, object]:
    if sampling.temperature == 0:
        return {"temperature": 0.0}
    drawing: dict[str, object] = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,  # 0 is off there too
        "top_p": sampling.top_p,
        "seed": seed,
    }
    return drawing | ({"min_p": sampling.min_p} if sampling.min_p else {})


def _penalties(sampling: Sampling, prompt: int) -> dict[str, object]:
    wanted: dict[str, object] = {}
    if sampling.repetition != 1:
        wanted["repetition_penalty"] = sampling.repetition
    if sampling.presence or sampling.frequency:
        wanted |= {
            "presence_penalty": sampling.presence,
            "frequency_penalty": sampling.frequency,
            "prompt_ignore_length": prompt,  # not the emitted tokens: they count
        }
    return wanted
