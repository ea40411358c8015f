"""Our requests as bodies of POST /v1/completions, and what cannot be said in one. Pure.

Each choice is a call of its own with n = 1: ending it frees it, and one that goes on behind
emitted tokens is the same call with a longer prompt. vLLM runs n > 1 in the same way.

Of a choice that goes on, the upstream takes for prompt what was generated. All that looks at
tokens alike (greedy choice, bias, allowed tokens, repetition penalty) does the same with it;
presence and frequency count only what is generated, so they cannot go on. Draws come from
another seed: the upstream would begin its noise anew, and repeat what it drew before.
"""

from collections.abc import Iterable
from hashlib import blake2b

from engines.api import GenerationRequest, Sampling
from engines.errors import Unsupported
from engines.upstream.config import Kind, UpstreamConfig

_MOST_BIAS = 100  # beyond it OpenAI refuses, and vLLM clips
_MOST_PRIORITY = 100  # of Penstock
_INT64 = 2**63


def check(request: GenerationRequest, config: UpstreamConfig) -> None:
    """Raise Unsupported for what would be ignored, or done in another way."""
    for param, said, unsaid in _unsayable(request, config):
        if said:
            raise Unsupported(unsaid, param=param)


def _unsayable(
    request: GenerationRequest, config: UpstreamConfig
) -> Iterable[tuple[str, bool, str]]:
    """Parameters, whether they are asked for, and why they cannot be."""
    sampling = request.sampling
    yield "bad_words", bool(sampling.bad_words), "an upstream takes bad words as text only"
    yield "thinking", sampling.thinking is not None, "an upstream keeps no thinking budget"
    biased = any(abs(bias) > _MOST_BIAS for bias in sampling.bias.values())
    yield "bias", biased, f"an upstream takes a bias of at most {_MOST_BIAS}"
    goes_on = any(request.logs) and bool(sampling.presence or sampling.frequency)
    yield "emitted", goes_on, "an upstream cannot go on with presence and frequency penalties"
    held = bool(sampling.min_tokens and sampling.stop_tokens)
    ignores = not config.ends <= sampling.stop_tokens
    if config.kind is Kind.VLLM:
        holds_more = "below min_tokens vLLM holds back the model's own end tokens, asked or not"
        yield "min_tokens", held and ignores, holds_more
    if config.kind is not Kind.PLAIN:
        return
    for param, said in (
        ("top_k", bool(sampling.top_k)),
        ("min_p", bool(sampling.min_p)),
        ("repetition", sampling.repetition != 1),
        ("min_tokens", held),
        ("cache_salt", bool(request.cache_salt)),
    ):
        yield param, said, f"OpenAI's text completions have no {param}"
    yield "stop_tokens", ignores, "this upstream always ends with the model's own end tokens"


def body(
    request: GenerationRequest, choice: int, config: UpstreamConfig, model: str
) -> dict[str, object]:
    """The call for one choice. Every value is said: a server has defaults of its own."""
    sampling, log = request.sampling, request.logs[choice] or ()
    said: dict[str, object] = {
        "model": model,
        "prompt": [*request.prompt, *log],
        "max_tokens": sampling.max_tokens - len(log),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence,
        "frequency_penalty": sampling.frequency,
    }
    if sampling.temperature:
        said["seed"] = _seed(sampling.seed, choice, len(log))
    if sampling.bias:
        bias = sampling.bias
        said["logit_bias"] = {str(token): bias[token] for token in _known(bias, config)}
    if config.kind is not Kind.PLAIN:
        said |= _extended(sampling, len(log), config)
        if request.cache_salt:
            said["cache_salt"] = request.cache_salt.hex()
        if request.priority and (config.priorities or config.kind is Kind.PENSTOCK):
            said["priority"] = max(-_MOST_PRIORITY, min(request.priority, _MOST_PRIORITY))
    if config.kind is Kind.PENSTOCK:  # tells what was cached before the end
        said["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return said


def _extended(sampling: Sampling, said: int, config: UpstreamConfig) -> dict[str, object]:
    """What vLLM has beyond OpenAI, by its names."""
    fields: dict[str, object] = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition,
        "min_tokens": max(0, sampling.min_tokens - said) if sampling.stop_tokens else 0,
        "ignore_eos": True,  # our stop tokens are all there are
        "stop_token_ids": sorted(_known(sampling.stop_tokens, config)),
        "include_stop_str_in_output": True,  # else Penstock tells no logprobs of a stop token
        "skip_special_tokens": False,
    }
    if sampling.allowed is not None:
        fields["allowed_token_ids"] = sorted(_known(sampling.allowed, config))
    if sampling.logprobs is not None:
        fields |= {"logprobs": sampling.logprobs, "return_tokens_as_token_ids": True}
    return fields


def _known(tokens: Iterable[int], config: UpstreamConfig) -> list[int]:
    return [token for token in tokens if 0 <= token < config.vocab_size]


def _seed(seed: int, choice: int, said: int) -> int:
    """Another stream of noise for each choice, and for what follows a continuation."""
    if not (choice or said):
        return (seed + _INT64) % (2 * _INT64) - _INT64
    key = f"{seed}:{choice}:{said}".encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little") >> 1
