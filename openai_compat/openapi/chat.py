"""Chat completions, described."""

from openai_compat.chat.labels import RETENTIONS, TIERS
from openai_compat.chat.lower import MAX_TOP_LOGPROBS
from openai_compat.chat.prompting import MAX_TEMPLATE_KWARGS
from openai_compat.chat.schema import KNOWN, MAX_MESSAGES, UNSUPPORTED
from openai_compat.chat.stream import REASONING_FIELDS
from openai_compat.conversation.thinking import EFFORTS
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
    record,
    ref,
    request,
    text,
    words,
)
from openai_compat.openapi.streams import resuming
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
    "reasoning_effort": choice("How much to think first.", *EFFORTS),
    "enable_thinking": flag("Whether to think first."),
    "thinking_token_budget": integer(-1, MAX_TOKENS, "At most so many tokens of it; -1: any."),
    "thinking_budget": integer(0, MAX_TOKENS, "At most so many tokens of it."),
    "include_reasoning": flag("Whether the answer tells it.", default=True),
    "separate_reasoning": flag("Whether it is told apart from the content.", default=True),
    "reasoning_fields": items(words(*REASONING_FIELDS), "Where it is told.", minItems=1),
    "verbosity": choice("For chat templates that read it.", "low", "medium", "high"),
    "chat_template_kwargs": {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        "maxProperties": MAX_TEMPLATE_KWARGS,
        "description": "Values for variables of the chat template.",
    },
    "add_generation_prompt": flag("Open the next turn.", default=True),
    "continue_final_message": flag("Go on with the last message, the assistant's."),
    "service_tier": choice("Accepted; the answer tells `default`.", *TIERS),
    "prompt_cache_retention": choice("A hint without effect.", *RETENTIONS),
    "prediction": record(
        {"type": words("content"), "content": {"anyOf": [text(), items(_PART)]}},
        required=("type", "content"),
    ),
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
_TIER = words("default")
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
        "reasoning": text("The same, under the name of others."),
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
                        "token_ids": TOKEN_IDS,
                        **EXTRAS,
                    },
                    maybe=("token_ids", *EXTRAS),
                )
            ),
            "usage": ref("Usage"),
            "service_tier": _TIER,
            "prompt_token_ids": PROMPT_IDS,
            "prompt_logprobs": PROMPT_LOGPROBS,
        },
        maybe=("service_tier", "prompt_token_ids", "prompt_logprobs"),
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
                        "token_ids": TOKEN_IDS,
                        **EXTRAS,
                    },
                    maybe=("token_ids", *EXTRAS),
                )
            ),
            "usage": nullable(ref("Usage")),
            "service_tier": _TIER,
            "prompt_token_ids": PROMPT_IDS,
            "obfuscation": OBFUSCATION,
        },
        "The data of each event of a stream, whose last data is `[DONE]`.",
        maybe=("usage", "service_tier", "prompt_token_ids", "obfuscation"),
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
    },
    "/v1/chat/completions/{stream_id}/stream": resuming(
        "resumeChatCompletion", "Chat", "ChatCompletionChunk", _STREAM
    ),
}
