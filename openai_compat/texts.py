"""Texts that become vectors: their tokens, within the model's context and the caps of one call."""

from collections.abc import Sequence

from engines.api import EmbeddingRequest, RequestId
from engines.text.many import Cut, Encoded, Side, cut_tokens, encode_many
from openai_compat.errors import ContextLengthExceeded, RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.guides import check_tokens
from openai_compat.options import MAX_PRIORITY
from openai_compat.served import CallContext, ServedModel

MAX_CALL_TOKENS = 300_000  # of all texts of one call, as in OpenAI's API

Text = str | list[int] | tuple[str, str]  # text, token ids as they are, or a pair of texts

CUT_FIELDS = frozenset({"truncate_prompt_tokens", "truncation_side"})


def read_cut(fields: Fields, model: ServedModel) -> Cut | None:
    """`truncate_prompt_tokens` tokens of each text are kept, -1: as many as the model takes.

    None where nothing may be cut. Raises `RequestRejected`.
    """
    most = model.info.max_context
    asked = fields.integer("truncate_prompt_tokens", -1, most)
    side = fields.one_of("truncation_side", tuple(Side))
    if asked == 0:
        raise wrong(fields.param("truncate_prompt_tokens"), f"-1 or 1 to {most}", asked)
    if asked is None:
        return None
    return Cut(most if asked == -1 else asked, Side.RIGHT if side is None else Side(side))


def encode_texts(
    texts: Sequence[Text],
    params: Sequence[str],
    model: ServedModel,
    *,
    special: bool = True,
    cut: Cut | None = None,
) -> list[Encoded]:
    """The tokens of each text; `params` name them in refusals.

    Raises `RequestRejected` for a text without tokens, for one that is longer than the model or the
    cut allows (`ContextLengthExceeded`), and for more tokens than one call may have.
    """
    given = sum(len(text) for text in texts if isinstance(text, list))
    if cut is None:
        _check_total(given)  # before a million ids are looked at one by one
    written = [text for text in texts if not isinstance(text, list)]
    encoded = iter(encode_many(written, model.tokenizer, special=special, cut=cut))
    found = []
    for text, param in zip(texts, params, strict=True):
        one = _as_given(text, param, model, cut) if isinstance(text, list) else next(encoded)
        _check_length(len(one.tokens), param, model, cut)
        found.append(one)
    _check_total(sum(len(one.tokens) for one in found))
    return found


def as_requests(
    encoded: Sequence[Encoded], priority: int, call: CallContext
) -> tuple[EmbeddingRequest, ...]:
    """One engine request per text, in order."""
    return tuple(
        EmbeddingRequest(
            id=RequestId(f"{call.id}-{place}"),
            prompt=one.tokens,
            second=one.second,
            priority=priority,
            cache_salt=call.cache_salt,
            tenant=call.tenant,
            weight=call.weight,
        )
        for place, one in enumerate(encoded)
    )


def read_priority(fields: Fields) -> int:
    """Lower is served earlier."""
    return fields.integer("priority", -MAX_PRIORITY, MAX_PRIORITY) or 0


def _as_given(tokens: list[int], param: str, model: ServedModel, cut: Cut | None) -> Encoded:
    kept = cut_tokens(tokens, cut)
    _check_length(len(kept), param, model, cut)  # before they are looked at one by one
    return Encoded(tuple(check_tokens(list(kept), model.info.vocab_size, param)))


def _check_length(tokens: int, param: str, model: ServedModel, cut: Cut | None) -> None:
    if tokens == 0:
        raise RequestRejected(f"'{param}' has no tokens; at least one is needed.", param=param)
    most = model.info.max_context
    if tokens > most:
        raise ContextLengthExceeded(
            f"This model takes at most {most} tokens of one text; '{param}' has {tokens}. Shorten"
            " it, or let it be cut by 'truncate_prompt_tokens'.",
            param=param,
        )
    if cut is not None and tokens > cut.most:
        raise RequestRejected(
            f"'truncate_prompt_tokens' is {cut.most}, but '{param}' still has {tokens} tokens that"
            " may not be cut.",
            param="truncate_prompt_tokens",
        )


def _check_total(tokens: int) -> None:
    if tokens > MAX_CALL_TOKENS:
        raise RequestRejected(
            f"The texts of this call have {tokens} tokens; the limit is {MAX_CALL_TOKENS} in one"
            " call. Send them in several.",
            code="too_many_tokens",
        )
