"""Tokenize, detokenize and render, described."""

from openai_compat.openapi.operations import JSON, About, Example, call, shown
from openai_compat.openapi.shapes import (
    Schema,
    answer,
    flag,
    integer,
    items,
    nullable,
    record,
    ref,
    text,
    words,
)
from openai_compat.texts import MAX_CALL_TOKENS

_MODEL = "penstock-tiny"
_TOKENS = items(integer(0))
_CHAT = [{"role": "user", "content": "Hi!"}]
_COUNTS = {
    "count": integer(0),
    "max_model_len": integer(1, None, "Tokens of prompt and output together."),
}
SCHEMAS: dict[str, Schema] = {
    "TokenizeRequest": record(
        {
            "model": text("A served model or one of its aliases."),
            "prompt": nullable(text("A text; or `messages` in its place.")),
            "messages": nullable(
                items({"type": "object"}, "A conversation, with every field of a chat request that"
                      " shapes its prompt (`tools`, `chat_template_kwargs` and the like).")
            ),
            "add_special_tokens": nullable(
                flag("The tokenizer's own; false by default for messages.", default=True)
            ),
            "return_token_strs": nullable(flag("Tell each token's piece of the vocabulary.")),
        },
        required=("model",),
    ),
    "Tokens": answer({**_COUNTS, "tokens": _TOKENS, "token_strs": nullable(items(text()))}),
    "DetokenizeRequest": record(
        {"model": text(), "tokens": items(integer(0), maxItems=MAX_CALL_TOKENS)},
        required=("model", "tokens"),
    ),
    "Detokenized": answer({"prompt": text("Special tokens spelled out.")}),
    "RenderedPrompt": answer(
        {
            "object": words("chat.completion.prompt"),
            "model": text("As the request named it."),
            "prompt": text("What the chat template makes of the messages."),
            "token_ids": _TOKENS,
            **_COUNTS,
        }
    ),
}  # fmt: skip

_TOKENIZED = {"count": 2, "max_model_len": 2048, "tokens": [300, 301], "token_strs": None}
_RENDERED = {
    "object": "chat.completion.prompt",
    "model": _MODEL,
    "prompt": "<|user|>Hi!",
    "token_ids": [4, 300],
    "count": 2,
    "max_model_len": 2048,
}
PATHS: dict[str, Schema] = {
    "/v1/tokenize": {
        "post": call(
            About("tokenize", "Tokens", "The tokens of a text or of a conversation"),
            request="TokenizeRequest",
            examples={
                "text": Example("A text", {"model": _MODEL, "prompt": "Rivers run."}),
                "chat": Example("A conversation", {"model": _MODEL, "messages": _CHAT}),
                "refused": Example("Neither", {"model": _MODEL}, status=400),
            },
            responses={JSON: shown(ref("Tokens"), _TOKENIZED)},
        )
    },
    "/v1/detokenize": {
        "post": call(
            About("detokenize", "Tokens", "The text of tokens"),
            request="DetokenizeRequest",
            examples={
                "plain": Example("Three tokens", {"model": _MODEL, "tokens": [300, 301, 302]}),
                "refused": Example("No tokens", {"model": _MODEL}, status=400),
            },
            responses={JSON: shown(ref("Detokenized"), {"prompt": "Rivers run."})},
        )
    },
    "/v1/chat/completions/render": {
        "post": call(
            About(
                "renderChat",
                "Tokens",
                "The prompt that a chat request would run",
                "Takes what `/v1/chat/completions` takes, refuses what that would refuse, and runs"
                " nothing.",
            ),
            request="ChatCompletionRequest",
            examples={
                "plain": Example("A question", {"model": _MODEL, "messages": _CHAT}),
                "refused": Example("No messages", {"model": _MODEL}, status=400),
            },
            responses={JSON: shown(ref("RenderedPrompt"), _RENDERED)},
        )
    },
}
