"""Chat completions, described."""

from openai_compat.chat.lower import MAX_TOP_LOGPROBS
from openai_compat.chat.schema import KNOWN, MAX_MESSAGES, UNSUPPORTED
from openai_compat.openapi.generation import FIELDS
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
    record,
    ref,
    request,
    text,
    words,
)
from openai_compat.sampling import MAX_TOKENS

_MODEL = "penstock-tiny"
_HI = {"model": _MODEL, "messages": [{"role": "user", "content": "Hello!"}]}

_PART = record({"type": words("text", "input_text"), "text": text()}, required=("type", "text"))
_CONTENT: Schema = {"anyOf": [text(), items(_PART)], "description": "A text, or text parts."}
_FUNCTION = record(
    {"name": text(), "description": text(), "parameters": {"type": "object"}, "strict": flag("")},
    required=("name",),
)
_TOOL = record({"type": words("function"), "function": _FUNCTION}, required=("type", "function"))
_TOOL_CALL = answer(
    {
        "id": text(),
        "type": words("function"),
        "function": answer({"name": text(), "arguments": text("JSON.")}),
    }
)

_NAME = nullable(text(maxLength=64))
_SAID = record(
    {"role": words("system", "developer", "user"), "content": _CONTENT, "name": _NAME},
    required=("role", "content"),
)
_ANSWERED = record(
    {
        "role": words("assistant"),
        "content": nullable(_CONTENT),
        "name": _NAME,
        "reasoning_content": nullable(text("How it thought.")),
        "tool_calls": nullable(items(_TOOL_CALL)),
    },
    required=("role",),
)
_RETURNED = record(
    {
        "role": words("tool"),
        "content": _CONTENT,
        "name": _NAME,
        "tool_call_id": nullable(text("The call that this is the result of.", maxLength=256)),
    },
    required=("role", "content"),
)

# What is refused today is described too: it is shown from the day it is acted on.
DESCRIBED: dict[str, Schema] = {
    **FIELDS,
    "messages": items(
        {"anyOf": [_SAID, _ANSWERED, _RETURNED]},
        "The conversation.",
        minItems=1,
        maxItems=MAX_MESSAGES,
    ),
    "max_completion_tokens": integer(1, MAX_TOKENS, "At most so many tokens; beats max_tokens."),
    "logprobs": flag("Tell how likely each token was."),
    "top_logprobs": integer(0, MAX_TOP_LOGPROBS, "Also the likeliest others; needs logprobs."),
    "metadata": {
        "type": "object",
        "additionalProperties": text(maxLength=512),
        "propertyNames": {"maxLength": 64},
        "maxProperties": 16,
        "description": "Labels of yours.",
    },
    "prompt_cache_key": text("A label of yours.", maxLength=512),
    "safety_identifier": text("A label of yours.", maxLength=512),
    "tools": items(_TOOL, "Functions that the model may call."),
    "tool_choice": {"description": "none, auto, required, or an object that names a function."},
    "parallel_tool_calls": flag("Whether several calls may come at once.", default=True),
    "response_format": {"description": "The form of the answer: text, or JSON as a schema says."},
    "reasoning_effort": text("How much to think first."),
    "chat_template_kwargs": {"type": "object", "description": "Values for the chat template."},
}

_TOKEN_LOGPROB = {
    "token": text(),
    "logprob": number(-9999, 0, "Natural logarithm; -9999 for impossible."),
    "bytes": nullable(items(integer(0, 255))),
}
_LOGPROBS = nullable(
    answer(
        {
            "content": nullable(
                items(answer({**_TOKEN_LOGPROB, "top_logprobs": items(answer(_TOKEN_LOGPROB))}))
            ),
            "refusal": {"type": "null"},
        }
    )
)
FINISH = choice("Why it ended.", "stop", "length", "tool_calls", "content_filter")
_HEAD = {
    "id": text(),
    "created": integer(0, None, "Unix seconds."),
    "model": text("As the request named it."),
    "system_fingerprint": text("Changes with the model and what computes it."),
}
_MESSAGE = answer(
    {
        "role": words("assistant"),
        "content": nullable(text()),
        "refusal": {"type": "null"},
        "reasoning_content": text("How the model thought, where it tells."),
        "reasoning": text("The same, under the name of others."),
        "tool_calls": items(_TOOL_CALL),
    },
    maybe=("reasoning_content", "reasoning", "tool_calls"),
)
_DELTA = record(
    {
        "role": choice("Once, in the first chunk.", "assistant"),
        "content": nullable(text("What comes next.")),
        "reasoning_content": text("What the model thinks next."),
        "tool_calls": items({"type": "object"}, "Id and name once, then arguments as they grow."),
    }
)
SCHEMAS: dict[str, Schema] = {
    "ChatCompletionRequest": request(KNOWN, UNSUPPORTED, DESCRIBED, required=("model", "messages")),
    "ChatCompletion": answer(
        {
            **_HEAD,
            "object": words("chat.completion"),
            "choices": items(
                answer(
                    {
                        "index": integer(0),
                        "message": _MESSAGE,
                        "logprobs": _LOGPROBS,
                        "finish_reason": FINISH,
                    }
                )
            ),
            "usage": ref("Usage"),
        }
    ),
    "ChatCompletionChunk": answer(
        {
            **_HEAD,
            "object": words("chat.completion.chunk"),
            "choices": items(
                answer(
                    {
                        "index": integer(0),
                        "delta": _DELTA,
                        "logprobs": _LOGPROBS,
                        "finish_reason": nullable(FINISH),
                    }
                )
            ),
            "usage": nullable(ref("Usage")),
        },
        "The data of each event of a stream, whose last data is `[DONE]`.",
        maybe=("usage",),
    ),
}

_EXAMPLES = {
    "plain": Example("A question", {**_HI, "max_tokens": 16}),
    "streamed": Example(
        "The answer as it is made",
        {**_HI, "max_tokens": 16, "stream": True, "stream_options": {"include_usage": True}},
    ),
    "sampled": Example(
        "Two answers, sampled with a seed",
        {**_HI, "max_tokens": 16, "n": 2, "temperature": 0.8, "top_p": 0.9, "seed": 7},
    ),
    "conversation": Example(
        "Several turns, and a text to stop at",
        {
            "model": _MODEL,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "What is a penstock?"}]},
                {"role": "assistant", "content": "A pipe that feeds a turbine."},
                {"role": "user", "content": "And what feeds the pipe?"},
            ],
            "stop": ["\n"],
            "max_completion_tokens": 24,
        },
    ),
    "refused": Example("More answers than are allowed", {**_HI, "n": 1000}, status=400),
    "unknown model": Example("A model that is not here", {**_HI, "model": "nope"}, status=404),
}
_ANSWER = {
    "id": "chatcmpl-4d1c",
    "created": 1700000000,
    "model": _MODEL,
    "system_fingerprint": "fp_6f205b9c77",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello!", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
_STREAM = (
    'data: {"id":"chatcmpl-4d1c","object":"chat.completion.chunk","created":1700000000,'
    '"model":"penstock-tiny","system_fingerprint":"fp_6f205b9c77","choices":[{"index":0,"delta":'
    '{"content":"Hello!"},"logprobs":null,"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
PATHS: dict[str, Schema] = {
    "/v1/chat/completions": {
        "post": call(
            About(
                "createChatCompletion",
                "Chat",
                "Answer a conversation",
                "OpenAI's chat completions. With `stream` the answer comes as server-sent events,"
                " each a ChatCompletionChunk, the last `[DONE]`. A stream that fails ends with an"
                ' event `{"error": {...}}` and a cut connection, never cleanly.',
            ),
            request="ChatCompletionRequest",
            examples=_EXAMPLES,
            responses={
                JSON: shown(ref("ChatCompletion"), _ANSWER),
                SSE: events(ref("ChatCompletionChunk"), _STREAM),
            },
        )
    }
}
