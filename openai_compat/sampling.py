"""The sampling fields of a request, shared by chat and text completions."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from engines.api import Capability, Sampling
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, describe, wrong
from openai_compat.guides import GUIDE_FIELDS, check_tokens, read_allowed, read_bad_words
from openai_compat.served import CallContext, ServedModel

MAX_LOGIT_BIAS = 300
MAX_STOP_TOKENS = 64
MAX_PROMPT_LOGPROBS = 20
MAX_TOKENS = 2**31 - 1
_INT64 = 2**63

# Fields that a model may bring its own values for.
HAVE_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")

SAMPLING_FIELDS = GUIDE_FIELDS | frozenset(
    {
        "frequency_penalty",
        "ignore_eos",
        "logit_bias",
        "min_p",
        "min_tokens",
        "presence_penalty",
        "prompt_logprobs",
        "repetition_penalty",
        "seed",
        "stop_token_ids",
        "temperature",
        "top_k",
        "top_p",
    }
)

# Which field needs which capability of the engine, and its values that need none. Temperature 0
# is greedy and 1 is the plain distribution, both of which every engine has.
_NEEDS: tuple[tuple[str, Capability, tuple[object, ...]], ...] = (
    ("temperature", Capability.SAMPLING, (0, 1)),
    ("top_k", Capability.SAMPLING, (0, -1)),
    ("top_p", Capability.SAMPLING, (1,)),
    ("min_p", Capability.SAMPLING, (0,)),
    ("presence_penalty", Capability.PENALTIES, (0,)),
    ("frequency_penalty", Capability.PENALTIES, (0,)),
    ("repetition_penalty", Capability.PENALTIES, (1,)),
    ("logit_bias", Capability.LOGIT_BIAS, ({},)),
    ("logprobs", Capability.LOGPROBS, ()),
    ("prompt_logprobs", Capability.PROMPT_LOGPROBS, ()),
    ("allowed_token_ids", Capability.GUIDES, ()),
    ("bad_words", Capability.GUIDES, ([],)),
)


def read_sampling(
    fields: Fields, model: ServedModel, call: CallContext, *, logprobs: int | None
) -> Sampling:
    """Everything but `max_tokens` (left 0 until the prompt is known). Raises `RequestRejected`."""
    vocab = model.info.vocab_size

    def chosen(name: str, neutral: float) -> float:
        return _or_default(read_bounded(fields, name, vocab), model, name, neutral)

    seed = fields.integer("seed", -_INT64, _INT64 - 1)
    sampling = Sampling(
        max_tokens=0,
        seed=call.seed if seed is None else seed,
        temperature=chosen("temperature", 1.0),
        top_k=max(0, int(chosen("top_k", 0))),
        top_p=chosen("top_p", 1.0),
        min_p=chosen("min_p", 0.0),
        min_tokens=fields.integer("min_tokens", 0, MAX_TOKENS) or 0,
        presence=fields.number("presence_penalty", -2, 2) or 0.0,
        frequency=fields.number("frequency_penalty", -2, 2) or 0.0,
        repetition=_repetition(fields, model),
        bias=_logit_bias(fields, vocab),
        stop_tokens=_stop_tokens(fields, model),
        logprobs=logprobs,
        prompt_logprobs=fields.integer("prompt_logprobs", 0, MAX_PROMPT_LOGPROBS),
        allowed=read_allowed(fields, vocab),
        bad_words=read_bad_words(fields, model.tokenizer),
    )
    _require_capabilities(fields, model, logprobs=logprobs)
    _check_something_is_left(fields, sampling)
    return sampling


def read_bounded(fields: Fields, name: str, vocab_size: int) -> float | None:
    """A value that a model may bring a default for, within the bounds that hold for clients too."""
    match name:
        case "top_k":
            return fields.integer(name, -1, vocab_size)
        case "temperature":
            return fields.number(name, 0, 2)
        case "min_p":
            return fields.number(name, 0, 1)
        case "top_p":
            return fields.number(name, 0, 1, above_low=True)
        case "repetition_penalty":
            return fields.number(name, 0, 10, above_low=True)
    raise KeyError(name)


def own_defaults(generation: Mapping[str, object], vocab_size: int) -> dict[str, float]:
    """The sampling values that a model brings; what a client could not ask for is left out."""
    fields, defaults = Fields(generation), {}
    for name in HAVE_DEFAULTS:
        with suppress(RequestRejected):
            value = read_bounded(fields, name, vocab_size)
            if value is not None:
                defaults[name] = value
    return defaults


def limit_tokens(sampling: Sampling, max_tokens: int) -> Sampling:
    """The sampling with its limit. Raises `RequestRejected` when `min_tokens` is above it."""
    if sampling.min_tokens > max_tokens:
        raise wrong("min_tokens", f"at most max_tokens, {max_tokens} here", sampling.min_tokens)
    return replace(sampling, max_tokens=max_tokens)


def require(capability: Capability, model: ServedModel, param: str) -> None:
    """Raises `RequestRejected` naming the field that needs what the model's engine lacks."""
    if capability not in model.info.capabilities:
        raise RequestRejected(
            f"'{param}' needs {capability.value}, which the engine of this model does not offer.",
            param=param,
            code="unsupported_by_engine",
        )


def _require_capabilities(fields: Fields, model: ServedModel, *, logprobs: int | None) -> None:
    for name, capability, free in _NEEDS:
        given = logprobs if name == "logprobs" else fields.raw(name)
        if given is not None and given not in free:
            require(capability, model, fields.param(name))


def _check_something_is_left(fields: Fields, sampling: Sampling) -> None:
    """Below `min_tokens` no stop token may be said, so something else must be allowed."""
    allowed = sampling.allowed
    if sampling.min_tokens and allowed is not None and allowed <= sampling.stop_tokens:
        param = fields.param("allowed_token_ids")
        raise RequestRejected(
            f"'{param}' leaves only stop tokens, which 'min_tokens' holds back.", param=param
        )


def _or_default(given: float | None, model: ServedModel, name: str, neutral: float) -> float:
    """The client's value, else the model's own where its engine can follow it, else neutral."""
    if given is not None:
        return given
    if Capability.SAMPLING not in model.info.capabilities:
        return neutral
    return model.defaults.get(name, neutral)


def _repetition(fields: Fields, model: ServedModel) -> float:
    given = read_bounded(fields, "repetition_penalty", model.info.vocab_size)
    if given is not None:
        return given
    if Capability.PENALTIES not in model.info.capabilities:
        return 1.0
    return model.defaults.get("repetition_penalty", 1.0)


def _stop_tokens(fields: Fields, model: ServedModel) -> frozenset[int]:
    asked = fields.items("stop_token_ids", MAX_STOP_TOKENS) or []
    param = fields.param("stop_token_ids")
    own = frozenset() if fields.flag("ignore_eos") else model.stop_tokens
    return own.union(check_tokens(asked, model.info.vocab_size, param))


def _logit_bias(fields: Fields, vocab_size: int) -> Mapping[int, float]:
    entries = fields.entries("logit_bias", MAX_LOGIT_BIAS) or {}
    param = fields.param("logit_bias")
    return {
        _bias_token(key, vocab_size, param): _bias_value(value, param)
        for key, value in entries.items()
    }


def _bias_token(key: str, vocab_size: int, param: str) -> int:
    # isdecimal also takes other scripts' digits; 20 characters are more than any vocabulary needs.
    if key.isascii() and key.isdecimal() and len(key) <= 20 and int(key) < vocab_size:
        return int(key)
    raise RequestRejected(
        f"Invalid key in '{param}': expected a token id from 0 to {vocab_size - 1} as a string,"
        f" got {describe(key)}.",
        param=param,
    )


def _bias_value(value: object, param: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -100 <= value <= 100:
        raise wrong(param, "numbers from -100 to 100 as values", value)
    return float(value)
