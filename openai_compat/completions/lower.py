"""A text completion to a job: one engine request per prompt, every check before any of them."""

from dataclasses import dataclass, replace

from engines.api import GenerationRequest, RequestId, Sampling
from openai_compat.choice import Choice
from openai_compat.completions.schema import KNOWN, UNSUPPORTED, Prompt, read_prompts
from openai_compat.completions.stream import CompletionShape
from openai_compat.context import TokenLimit, encode_prompt, fit
from openai_compat.fields import Fields
from openai_compat.identity import identity
from openai_compat.job import Job
from openai_compat.options import Options, read_options, requested_model
from openai_compat.render import EventRenderer
from openai_compat.sampling import MAX_TOKENS, limit_tokens, read_sampling
from openai_compat.served import CallContext, ServedModel
from openai_compat.unsupported import refuse_unsupported, unsupported

MAX_LOGPROBS = 20
DEFAULT_MAX_TOKENS = 16
_SEED_STRIDE = 0x9E3779B97F4A7C15  # odd: the prompts of one call get seeds far apart
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call asks of each of its prompts."""

    options: Options
    sampling: Sampling
    limit: TokenLimit
    seeded: bool
    echo: bool


def lower_completion(body: dict[str, object], model: ServedModel, call: CallContext) -> Job:
    """One engine request per prompt, in order. Raises `RequestRejected`; starts nothing."""
    fields = Fields(body)
    refuse_unsupported(fields, UNSUPPORTED)
    asked = _read(fields, model, call)
    prompts = read_prompts(fields, model)
    requests = tuple(
        _request(prompt, place, asked, model, call) for place, prompt in enumerate(prompts)
    )
    if len(requests) == 1:
        requests = (replace(requests[0], id=RequestId(call.id)),)
    answer = identity("cmpl", requested_model(body), model, call)
    echoes = _echoes(prompts, model) if asked.echo else ()
    shape = CompletionShape(
        answer, model.tokenizer, asked.options.n, echoes, include_usage=asked.options.include_usage
    )
    return Job(
        id=answer.id,
        requests=requests,
        renderer=_renderer(shape, requests, asked, model),
        stream=asked.options.stream,
        ignored=(*fields.unknown(KNOWN), *asked.options.ignored),
    )


def _read(fields: Fields, model: ServedModel, call: CallContext) -> _Asked:
    options = read_options(fields)
    best_of = fields.integer("best_of", 1, MAX_TOKENS)
    if best_of is not None and best_of not in (1, options.n):
        raise unsupported("best_of")
    logprobs = fields.integer("logprobs", 0, MAX_LOGPROBS)
    echo = fields.flag("echo")
    if echo and logprobs is not None:
        raise unsupported("echo", " together with 'logprobs'")
    max_tokens = fields.integer("max_tokens", 1, MAX_TOKENS)
    return _Asked(
        options=options,
        sampling=read_sampling(fields, model, call, logprobs=logprobs),
        limit=TokenLimit("max_tokens", DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens),
        seeded=fields.raw("seed") is not None,
        echo=echo,
    )


def _request(
    prompt: Prompt, place: int, asked: _Asked, model: ServedModel, call: CallContext
) -> GenerationRequest:
    tokens = (
        encode_prompt(prompt, model, special=True, param="prompt")
        if isinstance(prompt, str)
        else prompt
    )
    sampling = limit_tokens(asked.sampling, fit(tokens, asked.limit, model, param="prompt"))
    if not asked.seeded:
        sampling = replace(sampling, seed=_spread(call.seed, place))
    return GenerationRequest(
        id=RequestId(f"{call.id}-{place}"),
        prompt=tuple(tokens),
        sampling=sampling,
        n=asked.options.n,
        priority=asked.options.priority,
        cache_salt=call.cache_salt,
    )


def _spread(seed: int, place: int) -> int:
    """The server's seed for a prompt: without it, equal prompts of one call would get one text.

    A client that gives a seed gets that seed for each prompt, so that a prompt's text does not
    depend on its place in the list.
    """
    return (seed + place * _SEED_STRIDE + _INT64) % (2 * _INT64) - _INT64


def _echoes(prompts: list[Prompt], model: ServedModel) -> tuple[str, ...]:
    return tuple(
        prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt) for prompt in prompts
    )


def _renderer(
    shape: CompletionShape,
    requests: tuple[GenerationRequest, ...],
    asked: _Asked,
    model: ServedModel,
) -> EventRenderer:
    choices = [
        Choice(model.tokenizer.detokenizer(after=request.prompt), asked.options.stops)
        for request in requests
        for _ in range(request.n)
    ]
    return EventRenderer(shape, requests, choices, asked.options)
