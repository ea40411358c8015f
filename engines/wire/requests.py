"""Requests to messages and back: what a gateway asks of a worker."""

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from engines.api import GenerationRequest, Kept, RequestId, Sampling, ThinkingBudget
from engines.wire.kept import kept_message
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.wire.salts import read_salts, written_salts

# Of Sampling, what a message holds by the same name; the rest has a shape of its own.
_SHAPED = {"bias", "stop_tokens", "allowed", "bad_words", "thinking"}
_PLAIN = tuple(field.name for field in fields(Sampling) if field.name not in _SHAPED)
_OPTIONAL = frozenset({"logprobs", "prompt_logprobs", "grammar"})


def request_message(request: GenerationRequest) -> pb.Request:
    """The message of a request. Raises ValueError for numbers beyond the message's fields."""
    return pb.Request(
        id=request.id,
        prompt=request.prompt,
        sampling=_sampling_message(request.sampling),
        n=request.n,
        priority=request.priority,
        cache_salt=written_salts(request.cache_salt, request.shared),
        pooled=request.pooled,
        second=request.second,
        emitted=[
            pb.Emitted(ended=tokens is None, tokens=tokens or ()) for tokens in request.emitted
        ],
        adapter=request.adapter,
        extras=request.extras,
        tenant=request.tenant,
        weight=_hundredths(request.weight),
        kept=None if request.kept is None else kept_message(request.kept),
    )


def request_of(message: pb.Request) -> GenerationRequest:
    """The request of a message. Raises ValueError for what no request can be."""
    salt, shared = read_salts(message.cache_salt)
    return GenerationRequest(
        id=RequestId(message.id),
        prompt=tuple(message.prompt),
        sampling=_sampling_of(message.sampling),
        n=message.n,
        priority=message.priority,
        cache_salt=salt,
        pooled=message.pooled,
        second=message.second,
        emitted=tuple(None if one.ended else tuple(one.tokens) for one in message.emitted),
        adapter=message.adapter,
        extras=dict(message.extras),
        tenant=message.tenant,
        weight=(message.weight or 100) / 100,
        kept=Kept(message.kept.context, message.kept.attempt) if message.HasField("kept") else None,
        shared=shared,
    )


def _hundredths(weight: float) -> int:
    """As the message has it, which leaves out what is usual. Raises ValueError for too little."""
    hundredths = round(weight * 100)
    if hundredths < 1:
        raise ValueError(f"a weight of {weight} is too small: 0.01 is the least")
    return 0 if hundredths == 100 else hundredths


def _sampling_message(sampling: Sampling) -> pb.Sampling:
    plain = {name: getattr(sampling, name) for name in _PLAIN}
    thinking = sampling.thinking
    return pb.Sampling(
        **plain,
        bias=sampling.bias,
        stop_tokens=sorted(sampling.stop_tokens),
        allowed=None if sampling.allowed is None else _tokens(sorted(sampling.allowed)),
        bad_words=[_tokens(word) for word in sampling.bad_words],
        thinking=None
        if thinking is None
        else pb.ThinkingBudget(tokens=thinking.tokens, begin=thinking.begin, end=thinking.end),
    )


def _sampling_of(message: pb.Sampling) -> Sampling:
    plain: dict[str, Any] = {
        name: getattr(message, name)
        for name in _PLAIN
        if name not in _OPTIONAL or message.HasField(name)
    }
    sampling = Sampling(
        **plain,
        bias=dict(message.bias),
        stop_tokens=frozenset(message.stop_tokens),
        bad_words=tuple(tuple(word.tokens) for word in message.bad_words),
    )
    if message.HasField("allowed"):
        sampling = replace(sampling, allowed=frozenset(message.allowed.tokens))
    if message.HasField("thinking"):
        budget = message.thinking
        thinking = ThinkingBudget(budget.tokens, tuple(budget.begin), tuple(budget.end))
        sampling = replace(sampling, thinking=thinking)
    return sampling


def _tokens(tokens: Iterable[int]) -> pb.Tokens:
    return pb.Tokens(tokens=tokens)
