"""Fitting a prompt and its max_tokens into the model's context, before anything starts."""

from dataclasses import dataclass

from openai_compat.errors import ContextLengthExceeded, RequestRejected
from openai_compat.served import ServedModel

_FIRST_CHARS_PER_TOKEN = 8  # English has four; the first slice of a text that fits is all of it
# A slice may cut a word in two and so count a few tokens more than the whole text has there.
_CUT_MARGIN = 64


def encode_prompt(text: str, model: ServedModel, *, special: bool, param: str) -> list[int]:
    """The tokens of a prompt text that leaves room for at least one more.

    Raises `ContextLengthExceeded`. A text far over the limit costs about as much as one at the
    limit: slices of growing size are counted first, and the rest is never looked at.
    """
    limit = model.info.max_context
    slice_chars = (limit + _CUT_MARGIN) * _FIRST_CHARS_PER_TOKEN
    while slice_chars < len(text):
        counted = len(model.tokenizer.encode(text[:slice_chars], special=special))
        if counted > limit + _CUT_MARGIN:
            raise _too_long(f"more than {limit}", 1, model, param)
        slice_chars *= 4
    return model.tokenizer.encode(text, special=special)


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """The client's max_tokens, and the name it used for it."""

    param: str
    asked: int | None


def fit(prompt: list[int], limit: TokenLimit, model: ServedModel, *, param: str) -> int:
    """How many tokens may be generated: what was asked, or the rest of the context.

    Raises `ContextLengthExceeded` when the prompt and those do not fit together, naming the prompt
    when it alone is too long; and `RequestRejected` for an empty prompt.
    """
    if not prompt:
        raise RequestRejected(f"'{param}' has no tokens; at least one is needed.", param=param)
    check_length(len(prompt), model, param)
    room = model.info.max_context - len(prompt)
    asked = limit.asked
    if asked is not None and asked > room:
        raise _too_long(str(len(prompt)), asked, model, limit.param)
    return room if asked is None else asked


def check_length(tokens: int, model: ServedModel, param: str) -> None:
    """Raises `ContextLengthExceeded` for a prompt that leaves no room for a single token."""
    if tokens >= model.info.max_context:
        raise _too_long(str(tokens), 1, model, param)


def _too_long(prompt: str, asked: int, model: ServedModel, param: str) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"This model's context is {model.info.max_context} tokens, but the prompt has {prompt} and"
        f" max_tokens asks for {asked} more. Shorten the prompt or lower max_tokens.",
        param=param,
    )
