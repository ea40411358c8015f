"""Texts, conversations and tokens into each other, as vLLM's clients ask for it."""

from openai_compat.chat.lower import lower_chat
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields, wrong
from openai_compat.guides import check_tokens
from openai_compat.job import Prepared
from openai_compat.options import requested_model
from openai_compat.served import CallContext, ServedModel
from openai_compat.sse import json_bytes
from openai_compat.texts import MAX_CALL_TOKENS
from openai_compat.tokens.conversation import CONVERSATION_FIELDS, read_chat
from openai_compat.unsupported import Neutral, refuse_unsupported

_TEXT_FIELDS = frozenset({"add_special_tokens", "model", "prompt", "return_token_strs"})
_UNSUPPORTED: Neutral = {
    "chat_template": (),  # a request may carry no template text
    "documents": ([],),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
}


def tokenize(body: dict[str, object], model: ServedModel, call: CallContext) -> Prepared:
    """The tokens of a text, or of the prompt that a conversation becomes; however many they are.

    Raises `RequestRejected`.
    """
    fields = Fields(body)
    refuse_unsupported(fields, _UNSUPPORTED)
    shows = fields.flag("return_token_strs")
    chats = fields.raw("messages") is not None
    text, ignored = _chat(fields, model, call) if chats else (_text(fields), ())
    known = _TEXT_FIELDS | CONVERSATION_FIELDS if chats else _TEXT_FIELDS
    # A chat template writes its special tokens itself.
    special = fields.flag("add_special_tokens", default=not chats)
    (encoding,) = model.tokenizer.encode_batch([text], special=special)
    answer = {
        "count": len(encoding.ids),
        "max_model_len": model.info.max_context,
        "tokens": encoding.ids,
        "token_strs": model.tokenizer.pieces(encoding.ids) if shows else None,
    }
    unknown = fields.unknown(known | _UNSUPPORTED.keys())
    return Prepared(json_bytes(answer), (*unknown, *ignored))


def detokenize(body: dict[str, object], model: ServedModel, _call: CallContext) -> Prepared:
    """The text of tokens, special ones spelled out. Raises `RequestRejected`."""
    fields = Fields(body)
    given = fields.items("tokens", MAX_CALL_TOKENS)
    if given is None:
        raise wrong(fields.param("tokens"), "an array of token ids", None)
    tokens = check_tokens(given, model.info.vocab_size, fields.param("tokens"))
    answer = {"prompt": model.tokenizer.decode_spelled(tokens)}
    return Prepared(json_bytes(answer), fields.unknown({"model", "tokens"}))


def render_chat(body: dict[str, object], model: ServedModel, call: CallContext) -> Prepared:
    """What a chat request would run: its prompt, and the tokens of that.

    Raises `RequestRejected` for all that the request itself would be refused for.
    """
    job = lower_chat(body, model, call)
    text, _ = read_chat(Fields(body), model, call)
    tokens = job.requests[0].prompt
    answer = {
        "object": "chat.completion.prompt",
        "model": requested_model(body),
        "prompt": text,
        "token_ids": tokens,
        "count": len(tokens),
        "max_model_len": model.info.max_context,
    }
    return Prepared(json_bytes(answer), job.ignored)


def _text(fields: Fields) -> str:
    text = fields.text("prompt")
    if text is None:
        raise wrong(fields.param("prompt"), "a string, or 'messages' in its place", None)
    return text


def _chat(fields: Fields, model: ServedModel, call: CallContext) -> tuple[str, tuple[str, ...]]:
    if fields.raw("prompt") is not None:
        raise RequestRejected("'prompt' and 'messages' exclude each other.", param="prompt")
    return read_chat(fields, model, call)
