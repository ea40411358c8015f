"""A text completion to a job: one engine request per prompt, every check before any of them."""

from dataclasses import dataclass, replace

from engines.api import Capability, GenerationRequest, RequestId, Sampling
from openai_compat.amended import amended
from openai_compat.cache_salt import salted
from openai_compat.choice import Choice
from openai_compat.completions.best_of import BestOf, ScoredChoice
from openai_compat.completions.schema import KNOWN, UNSUPPORTED, Prompt, read_prompts
from openai_compat.completions.scoring import PromptOnly
from openai_compat.completions.stream import CompletionShape, CompletionTelling
from openai_compat.context import TokenLimit, Truncation, fit, prompt_tokens, read_truncation
from openai_compat.conversation.ask import Constraint
from openai_compat.conversation.constraint import format_constraint, with_grammar
from openai_compat.conversation.formats import read_format
from openai_compat.engine_extras import Extras, read_extras
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.identity import Identity, identity
from openai_compat.job import Job
from openai_compat.options import Options, read_options, refuse_streamed_prompt, requested_model
from openai_compat.prompt_telling import PromptTelling
from openai_compat.render import EventRenderer
from openai_compat.sampling import MAX_TOKENS, limit_tokens, read_sampling, require
from openai_compat.served import CallContext, ServedModel
from openai_compat.unsupported import refuse_unsupported
from openai_compat.usage import usage_object

MAX_LOGPROBS = 20
MAX_BEST_OF = 20
DEFAULT_MAX_TOKENS = 16
MAX_ECHOED_LOGPROBS = 20_000  # in a stream, where they are one frame, made in up to 37 ms
_SEED_STRIDE = 0x9E3779B97F4A7C15  # odd: the prompts of one call get seeds far apart
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a call asks of each of its prompts."""

    options: Options
    sampling: Sampling  # as the engine gets it
    limit: TokenLimit
    best_of: int
    seeded: bool
    echo: bool
    special: bool
    truncation: Truncation | None
    logprobs: int | None  # as they are told
    prompt_logprobs: int | None
    constraint: Constraint | None
    extras: Extras

    @property
    def scores(self) -> bool:
        """Whether the prompt is all that is wanted."""
        return self.limit.asked == 0

    @property
    def echo_logprobs(self) -> bool:
        return self.echo and self.logprobs is not None


@dataclass(frozen=True, slots=True)
class _Lowered:
    """One prompt: what runs, and the text it is echoed by."""

    request: GenerationRequest
    echo: str


def lower_completion(body: dict[str, object], model: ServedModel, call: CallContext) -> Job:
    """One engine request per prompt, in order. Raises `RequestRejected`; starts nothing."""
    fields = Fields(body)
    refuse_unsupported(fields, UNSUPPORTED)
    asked = _read(fields, model, call)
    prompts = read_prompts(fields, model, truncated=asked.truncation is not None)
    if asked.extras.asked and len(prompts) > 1:
        raise wrong("prompt", "one prompt, where the engine is handed extras", prompts)
    call = salted(fields, call)
    lowered = [_lower(prompt, place, asked, model, call) for place, prompt in enumerate(prompts)]
    requests = tuple(prompt.request for prompt in lowered)
    if len(requests) == 1:
        requests = (replace(requests[0], id=RequestId(call.id)),)
    answer = identity("cmpl", requested_model(body), model, call)
    return Job(
        id=answer.id,
        requests=requests,
        renderer=amended(
            _renderer(_shape(answer, lowered, asked, model), lowered, asked, model),
            asked.options,
            call.seed,
            usage_object,
        ),
        stream=asked.options.stream,
        ignored=(*fields.unknown(KNOWN), *asked.options.ignored),
        constraint=asked.constraint,
    )


def _read(fields: Fields, model: ServedModel, call: CallContext) -> _Asked:
    options = read_options(fields)
    refuse_streamed_prompt(fields, options)
    echo = fields.flag("echo")
    limit = _limit(fields, echo=echo)
    best_of = _best_of(fields, options, model)
    if limit.asked == 0:
        best_of = options.n  # nothing is generated to choose from
    logprobs = fields.integer("logprobs", 0, MAX_LOGPROBS)
    sampling = read_sampling(fields, model, call, logprobs=logprobs)
    sampling, constraint = _formed(sampling, fields, model)
    prompt_logprobs = sampling.prompt_logprobs
    if best_of > options.n and logprobs is None:
        sampling = replace(sampling, logprobs=0)  # what is best is found by them
    if echo and logprobs is not None:
        require(Capability.PROMPT_LOGPROBS, model, fields.param("echo"))
        sampling = replace(sampling, prompt_logprobs=max(logprobs, sampling.prompt_logprobs or 0))
    return _Asked(
        options=options,
        sampling=sampling,
        limit=limit,
        best_of=best_of,
        seeded=fields.raw("seed") is not None,
        echo=echo,
        special=fields.flag("add_special_tokens", default=True),
        truncation=read_truncation(fields, limit, model),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        constraint=constraint,
        extras=read_extras(fields, model),
    )


def _formed(
    sampling: Sampling, fields: Fields, model: ServedModel
) -> tuple[Sampling, Constraint | None]:
    """The sampling with the grammar of the form that the text is asked to have."""
    form = read_format(fields)
    if form is None:
        return sampling, None
    constraint = format_constraint(form, model)
    return with_grammar(sampling, constraint, model), constraint


def _limit(fields: Fields, *, echo: bool) -> TokenLimit:
    asked = fields.integer("max_tokens", 0, MAX_TOKENS)
    param = fields.param("max_tokens")
    if asked == 0 and not echo:
        raise wrong(param, "at least 1, or 0 together with 'echo'", asked)
    return TokenLimit(param, DEFAULT_MAX_TOKENS if asked is None else asked)


def _best_of(fields: Fields, options: Options, model: ServedModel) -> int:
    best_of = fields.integer("best_of", 1, MAX_BEST_OF)
    param = fields.param("best_of")
    if best_of in (None, 1, options.n):  # 1 is the default, which some clients send with any n
        return options.n
    if best_of < options.n:
        raise wrong(param, f"at least n, {options.n} here", best_of)
    if options.stream:
        raise RequestRejected(f"'{param}' above 'n' cannot be streamed.", param=param)
    if best_of > model.info.max_running:
        most = f"at most {model.info.max_running}, the sequences run at once (--max-running)"
        raise wrong(param, most, best_of)
    require(Capability.LOGPROBS, model, param)
    return best_of


def _lower(
    prompt: Prompt, place: int, asked: _Asked, model: ServedModel, call: CallContext
) -> _Lowered:
    tokens = _tokens(prompt, asked, model)
    _check_streamed(tokens, asked)
    limit = replace(asked.limit, asked=1) if asked.scores else asked.limit
    sampling = limit_tokens(asked.sampling, fit(tokens, limit, model, param="prompt"))
    if not asked.seeded:
        sampling = replace(sampling, seed=_spread(call.seed, place))
    request = GenerationRequest(
        id=RequestId(f"{call.id}-{place}"),
        prompt=tuple(tokens),
        sampling=sampling,
        n=asked.best_of,
        priority=asked.options.priority,
        cache_salt=call.cache_salt,
        tenant=call.tenant,
        weight=call.weight,
        adapter=model.adapter,
        extras=asked.extras.asked,
    )
    return _Lowered(request, _echo(prompt, tokens, asked, model))


def _tokens(prompt: Prompt, asked: _Asked, model: ServedModel) -> list[int]:
    if isinstance(prompt, str):
        return prompt_tokens(
            prompt, model, special=asked.special, param="prompt", truncation=asked.truncation
        )
    return prompt if asked.truncation is None else asked.truncation.cut(prompt)


def _check_streamed(tokens: list[int], asked: _Asked) -> None:
    """An echo is one frame, and making a huge one would hold up every other stream."""
    told = len(tokens) * ((asked.logprobs or 0) + 1)
    if asked.echo_logprobs and asked.options.stream and told > MAX_ECHOED_LOGPROBS:
        raise RequestRejected(
            f"'echo' would stream {told} log-probabilities; the limit is {MAX_ECHOED_LOGPROBS}."
            " Ask without 'stream'.",
            param="echo",
        )


def _spread(seed: int, place: int) -> int:
    """The server's seed for a prompt: without it, equal prompts of one call would get one text.

    A client that gives a seed gets that seed for each prompt, so that a prompt's text does not
    depend on its place in the list.
    """
    return (seed + place * _SEED_STRIDE + _INT64) % (2 * _INT64) - _INT64


def _echo(prompt: Prompt, tokens: list[int], asked: _Asked, model: ServedModel) -> str:
    """The text to tell of a prompt: as it came, or as the tokens that are left of it spell."""
    if not asked.echo:
        return ""
    if isinstance(prompt, str) and asked.truncation is None:
        return prompt
    if asked.options.showing.specials:
        return model.tokenizer.decode_spelled(tokens)
    return model.tokenizer.decode(tokens)


def _shape(
    answer: Identity, lowered: list[_Lowered], asked: _Asked, model: ServedModel
) -> CompletionShape:
    showing = asked.options.showing
    prompts = [
        PromptTelling(prompt.request.prompt, model.tokenizer, ids=showing.token_ids)
        for prompt in lowered
    ]
    telling = CompletionTelling(
        n=asked.options.n,
        include_usage=asked.options.include_usage,
        showing=showing,
        echoes=[prompt.echo for prompt in lowered] if asked.echo else (),
        echo_logprobs=asked.logprobs if asked.echo else None,
        prompt_logprobs=asked.prompt_logprobs,
        extras=asked.extras,
    )
    return CompletionShape(answer, model.tokenizer, prompts, telling)


def _renderer(
    shape: CompletionShape, lowered: list[_Lowered], asked: _Asked, model: ServedModel
) -> EventRenderer:
    requests = [prompt.request for prompt in lowered]
    if asked.scores:
        nothing = [PromptOnly() for request in requests for _ in range(request.n)]
        return EventRenderer(shape, requests, nothing, asked.options)
    choices = [_choice(prompt, asked, model) for prompt in lowered for _ in range(prompt.request.n)]
    if asked.best_of == asked.options.n:
        return EventRenderer(shape, requests, choices, asked.options)
    told = asked.logprobs is not None
    scored = [ScoredChoice(choice, tells_logprobs=told) for choice in choices]
    best = BestOf(asked.options.n, asked.best_of, scored)
    return EventRenderer(shape, requests, scored, asked.options, pick=best.pick)


def _choice(prompt: _Lowered, asked: _Asked, model: ServedModel) -> Choice:
    showing = asked.options.showing
    spelled = model.tokenizer.special_tokens if showing.specials else frozenset[int]()
    return Choice(
        model.tokenizer.detokenizer(after=prompt.request.prompt, spelled=spelled),
        asked.options.stops,
        showing=showing,
        offset=len(prompt.echo),
    )
