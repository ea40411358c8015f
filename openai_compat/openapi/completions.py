"""Text completions, described."""

from openai_compat.completions.lower import DEFAULT_MAX_TOKENS, MAX_BEST_OF, MAX_LOGPROBS
from openai_compat.completions.schema import KNOWN, MAX_PROMPTS, UNSUPPORTED
from openai_compat.openapi.generation import (
    EXTRAS,
    FIELDS,
    OBFUSCATION,
    PROMPT_IDS,
    PROMPT_LOGPROBS,
    TOKEN_IDS,
)
from openai_compat.openapi.operations import JSON, SSE, About, Example, call, events, shown
from openai_compat.openapi.shapes import (
    Schema,
    answer,
    choice,
    flag,
    integer,
    items,
    nullable,
    number,
    ref,
    request,
    text,
    words,
)
from openai_compat.openapi.streams import resuming
from openai_compat.sampling import MAX_TOKENS

_MODEL = "penstock-tiny"
_TOKENS = items(integer(0), minItems=1)

DESCRIBED: dict[str, Schema] = {
    **FIELDS,
    "prompt": {
        "anyOf": [
            text(),
            _TOKENS,
            items(text(), minItems=1, maxItems=MAX_PROMPTS),
            items(_TOKENS, minItems=1, maxItems=MAX_PROMPTS),
        ],
        "description": "A text or token ids, or several of one kind.",
    },
    "max_tokens": integer(
        0, MAX_TOKENS, "At most so many tokens; 0 needs echo.", default=DEFAULT_MAX_TOKENS
    ),
    "best_of": integer(1, MAX_BEST_OF, "Answers to choose `n` from; not with stream."),
    "echo": flag("Begin with the prompt."),
    "logprobs": integer(0, MAX_LOGPROBS, "How likely each token was, and so many others."),
    "suffix": text("What comes after the text."),
}

FINISH = choice("Why it ended.", "stop", "length", "content_filter")
_LOGPROB = nullable(number(-9999, 0, "Natural logarithm; -9999 for impossible."))
_CHOICE = {
    "index": integer(0),
    "text": text(),
    "logprobs": nullable(
        answer(
            {
                "tokens": items(text()),
                "token_logprobs": items(_LOGPROB),
                "top_logprobs": items(
                    nullable({"type": "object", "additionalProperties": _LOGPROB})
                ),
                "text_offset": items(integer(0)),
            }
        )
    ),
    "token_ids": TOKEN_IDS,
    "prompt_token_ids": PROMPT_IDS,
    "prompt_logprobs": PROMPT_LOGPROBS,
    **EXTRAS,
}
_ASKED_FOR = ("token_ids", "prompt_token_ids", "prompt_logprobs", *EXTRAS)
_HEAD = {
    "id": text(),
    "object": words("text_completion"),
    "created": integer(0, None, "Unix seconds."),
    "model": text("As the request named it."),
    "system_fingerprint": text("Changes with the model and what computes it."),
}
SCHEMAS: dict[str, Schema] = {
    "CompletionRequest": request(KNOWN, UNSUPPORTED, DESCRIBED, required=("model", "prompt")),
    "Completion": answer(
        {
            **_HEAD,
            "choices": items(answer({**_CHOICE, "finish_reason": FINISH}, maybe=_ASKED_FOR)),
            "usage": ref("Usage"),
        }
    ),
    "CompletionChunk": answer(
        {
            **_HEAD,
            "choices": items(
                answer({**_CHOICE, "finish_reason": nullable(FINISH)}, maybe=_ASKED_FOR)
            ),
            "usage": nullable(ref("Usage")),
            "obfuscation": OBFUSCATION,
        },
        "The data of each event of a stream, whose last data is `[DONE]`.",
        maybe=("usage", "obfuscation"),
    ),
}

_ONCE = {"model": _MODEL, "prompt": "Once upon a time"}
_EXAMPLES = {
    "plain": Example("A text to go on with", {**_ONCE, "max_tokens": 8}),
    "streamed": Example("The text as it is made", {**_ONCE, "max_tokens": 8, "stream": True}),
    "batched": Example(
        "Several prompts at once, with the prompt before each answer",
        {"model": _MODEL, "prompt": ["One, two,", "Red, green,"], "echo": True, "max_tokens": 4},
    ),
    "tokens": Example("Token ids", {"model": _MODEL, "prompt": [300, 301, 302], "max_tokens": 4}),
    "refused": Example("No prompt", {"model": _MODEL}, status=400),
}
_ANSWER = {
    "id": "cmpl-4d1c",
    "object": "text_completion",
    "created": 1700000000,
    "model": _MODEL,
    "system_fingerprint": "fp_6f205b9c77",
    "choices": [{"index": 0, "text": ", there was", "logprobs": None, "finish_reason": "length"}],
    "usage": {
        "prompt_tokens": 4,
        "completion_tokens": 3,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
_STREAM = (
    'data: {"id":"cmpl-4d1c","object":"text_completion","created":1700000000,'
    '"model":"penstock-tiny","system_fingerprint":"fp_6f205b9c77","choices":[{"index":0,'
    '"text":", there","logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
PATHS: dict[str, Schema] = {
    "/v1/completions": {
        "post": call(
            About(
                "createCompletion",
                "Completions",
                "Go on with a text",
                "OpenAI's text completions. With `stream` the answer comes as server-sent events,"
                " each a CompletionChunk, the last `[DONE]`.",
            ),
            request="CompletionRequest",
            examples=_EXAMPLES,
            responses={
                JSON: shown(ref("Completion"), _ANSWER),
                SSE: events(ref("CompletionChunk"), _STREAM),
            },
        )
    },
    "/v1/completions/{stream_id}/stream": resuming(
        "resumeCompletion", "Completions", "CompletionChunk", _STREAM
    ),
}
