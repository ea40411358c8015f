"""Fitting a prompt and its max_tokens into the model's context, before anything starts."""

from dataclasses import dataclass

from openai_compat.errors import ContextLengthExceeded, RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.served import ServedModel

# A slice may cut a word in two and so count a few tokens more than the whole text has there.
_CUT_MARGIN = 64
# langchain-openai over openai-python 3 knows an overflow by these words, no longer by the code.
_TOO_LONG = "prompt is too long"

TRUNCATION_FIELDS = frozenset({"truncate_prompt_tokens", "truncation_side"})

# Texts up to here are counted whole: a millisecond, where a slice first would add half of it.
_ALWAYS_COUNTED = 4096  # characters


def encode_prompt(text: str, model: ServedModel, *, special: bool, param: str) -> list[int]:
    """The tokens of a prompt text that leaves room for at least one more.

    Raises `ContextLengthExceeded`. A text far over the limit costs about what one at the limit
    costs: a slice that cannot be too long (no character is more than four tokens) tells how many
    characters should be, that many are counted, and the rest is never looked at.
    """
    most = model.info.max_context + _CUT_MARGIN
    chars = max(most // 4, _ALWAYS_COUNTED)
    while chars < len(text):
        counted = len(model.tokenizer.encode(text[:chars], special=special))
        if counted > most:
            raise no_room_for(f"more than {model.info.max_context} tokens", model, param)
        chars = max(chars * 2, chars * most * 9 // (max(counted, 1) * 8))
    return model.tokenizer.encode(text, special=special)


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """The client's max_tokens, and the name it used for it."""

    param: str
    asked: int | None


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a prompt that is longer is kept. Only ever asked for by name."""

    tokens: int
    first: bool = False  # the tokens at the start are kept, not those at the end

    def cut(self, prompt: list[int]) -> list[int]:
        """The tokens that are kept."""
        return prompt[: self.tokens] if self.first else prompt[-self.tokens :]


def read_truncation(fields: Fields, limit: TokenLimit, model: ServedModel) -> Truncation | None:
    """`truncate_prompt_tokens`, where -1 keeps what leaves room for the answer.

    Raises `RequestRejected`.
    """
    most = model.info.max_context
    tokens = fields.integer("truncate_prompt_tokens", -1, most)
    side = fields.one_of("truncation_side", ("left", "right"))
    if tokens is None:
        return None
    if tokens == 0:
        raise wrong(fields.param("truncate_prompt_tokens"), f"-1 or 1 to {most}", tokens)
    if tokens == -1:
        tokens = max(1, most - max(1, limit.asked or 1))
    return Truncation(tokens, first=side == "right")


def prompt_tokens(
    text: str, model: ServedModel, *, special: bool, param: str, truncation: Truncation | None
) -> list[int]:
    """The tokens of a prompt text, cut where the client asks for it.

    Raises `ContextLengthExceeded`, as `encode_prompt` does, where it does not.
    """
    if truncation is None:
        return encode_prompt(text, model, special=special, param=param)
    return truncation.cut(model.tokenizer.encode(text, special=special))


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
        raise ContextLengthExceeded(
            f"The {_TOO_LONG}: it has {len(prompt)} tokens and {limit.param} asks for {asked} more,"
            f" but the context is {model.info.max_context}. Shorten the prompt or lower"
            f" {limit.param} to {room}.",
            param=limit.param,
        )
    return room if asked is None else asked


def check_length(tokens: int, model: ServedModel, param: str) -> None:
    """Raises `ContextLengthExceeded` for a prompt that leaves no room for a single token."""
    if tokens >= model.info.max_context:
        raise no_room_for(f"{tokens} tokens", model, param)


def no_room_for(length: str, model: ServedModel, param: str) -> ContextLengthExceeded:
    """What is told of a prompt that is too long by itself."""
    return ContextLengthExceeded(
        f"The {_TOO_LONG}: it alone has {length}, but the context is"
        f" {model.info.max_context} tokens. Shorten the prompt.",
        param=param,
    )
