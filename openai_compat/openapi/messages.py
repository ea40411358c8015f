"""Anthropic's messages, described."""

from openai_compat.anthropic.schema import (
    KNOWN,
    KNOWN_TO_COUNT,
    MAX_STOP_BYTES,
    MAX_STOPS,
    UNSUPPORTED,
)
from openai_compat.anthropic.turns import MAX_MESSAGES
from openai_compat.conversation.tools import MAX_DESCRIPTION_CHARS, MAX_TOOLS
from openai_compat.openapi.errors import CALLING
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
_BREAKPOINT = record(
    {"type": words("ephemeral"), "ttl": nullable(words("5m", "1h"))},
    "Accepted; every prompt is cached here by itself.",
    required=("type",),
)
_CACHE = nullable(_BREAKPOINT)
_TEXT = record(
    {"type": words("text"), "text": text(), "cache_control": _CACHE}, required=("type", "text")
)
_BLOCK: Schema = {
    "anyOf": [
        _TEXT,
        record(
            {
                "type": words("tool_result"),
                "tool_use_id": text(maxLength=256),
                "content": {"anyOf": [text(), items(_TEXT), {"type": "null"}]},
                "is_error": nullable(flag("Told to the model before the text.")),
                "cache_control": _CACHE,
            },
            "What a tool gave; of the user, before anything else.",
            required=("type", "tool_use_id"),
        ),
        record(
            {
                "type": words("tool_use"),
                "id": text(maxLength=256),
                "name": text(maxLength=128),
                "input": {"type": "object"},
                "cache_control": _CACHE,
            },
            "A call, of the assistant.",
            required=("type", "id", "name", "input"),
        ),
        record(
            {"type": words("thinking"), "thinking": text(), "signature": nullable(text())},
            "What the assistant thought.",
            required=("type", "thinking"),
        ),
        record(
            {"type": words("redacted_thinking"), "data": nullable(text())},
            "Accepted; there is nothing in it that a model here could read.",
            required=("type",),
        ),
    ]
}
_TOOL = record(
    {
        "name": text(pattern="^[a-zA-Z0-9_-]{1,128}$"),
        "description": nullable(text(maxLength=MAX_DESCRIPTION_CHARS)),
        "input_schema": record({"type": nullable(words("object"))}, "A JSON schema."),
        "strict": nullable(flag("Hold calls to the schema also where none is forced.")),
        "type": nullable(words("custom")),
        "cache_control": _CACHE,
    },
    required=("name", "input_schema"),
)
_FORMAT = record(
    {"type": words("json_schema"), "schema": {"type": "object"}},
    "Holds the answer to a JSON schema.",
    required=("type", "schema"),
)
_STOP = text(minLength=1, maxLength=MAX_STOP_BYTES)

DESCRIBED: dict[str, Schema] = {
    "model": text("The name of a served model, or an alias of one.", minLength=1),
    "max_tokens": integer(1, MAX_TOKENS, "At most so many tokens, or what the context leaves."),
    "messages": items(
        record(
            {
                "role": words("user", "assistant", "system"),
                "content": {"anyOf": [text(), items(_BLOCK)]},
            },
            required=("role", "content"),
        ),
        "The conversation; a last message of the assistant is continued.",
        minItems=1,
        maxItems=MAX_MESSAGES,
    ),
    "system": {
        "anyOf": [text(), items(_TEXT)],
        "description": "What leads the conversation.",
    },
    "stream": flag("Answer with events as tokens are made."),
    "stop_sequences": items(_STOP, "Texts that end the answer before them.", maxItems=MAX_STOPS),
    "temperature": number(0, 1, "0: always the likeliest token. Default: the model's, else 1."),
    "top_p": number(0, 1, "Only the likeliest tokens of this mass.", above_low=True),
    "top_k": integer(0, None, "Only so many of the likeliest tokens; 0: all."),
    "metadata": record({"user_id": nullable(text("A label of yours.", maxLength=512))}),
    "service_tier": choice("There is one tier.", "auto", "standard_only"),
    "cache_control": _BREAKPOINT,
    "tools": items(_TOOL, "Functions that the model may call.", maxItems=MAX_TOOLS),
    "tool_choice": record(
        {
            "type": words("auto", "any", "tool", "none"),
            "name": nullable(text("Of the tool, where `type` is tool.")),
            "disable_parallel_tool_use": nullable(flag("At most one call.")),
        },
        required=("type",),
    ),
    "thinking": record(
        {
            "type": words("enabled", "disabled", "adaptive"),
            "budget_tokens": nullable(integer(1, MAX_TOKENS, "Of thoughts, where enabled.")),
            "display": nullable(words("summarized", "omitted")),
        },
        required=("type",),
    ),
    "output_config": record(
        {
            "effort": nullable(words("low", "medium", "high", "xhigh", "max")),
            "format": nullable(_FORMAT),
        }
    ),
    "output_format": {**_FORMAT, "description": "The older place of output_config.format."},
}

_TOKENS = integer(0)
_COUNTS = {
    "input_tokens": integer(0, None, "Of the prompt, computed for this call."),
    "cache_creation_input_tokens": integer(0, 0, "Writing the cache is never charged."),
    "cache_read_input_tokens": integer(0, None, "Of the prompt, found in the prefix cache."),
    "output_tokens": _TOKENS,
    "output_tokens_details": answer({"thinking_tokens": _TOKENS}),
}
_CONTENT: Schema = {
    "anyOf": [
        answer({"type": words("text"), "text": text()}),
        answer({"type": words("thinking"), "thinking": text(), "signature": text()}),
        answer(
            {
                "type": words("tool_use"),
                "id": text(),
                "name": text(),
                "input": {"type": "object"},
            }
        ),
    ]
}
_REASON = nullable(
    choice(
        "Why it ended.",
        *("end_turn", "max_tokens", "stop_sequence", "tool_use"),
        "model_context_window_exceeded",
    )
)
SCHEMAS: dict[str, Schema] = {
    "MessageRequest": request(
        KNOWN, UNSUPPORTED, DESCRIBED, required=("model", "max_tokens", "messages")
    ),
    "MessageCountRequest": request(
        KNOWN_TO_COUNT, UNSUPPORTED, DESCRIBED, required=("model", "messages")
    ),
    "Message": answer(
        {
            "id": text(),
            "type": words("message"),
            "role": words("assistant"),
            "model": text("As the request named it."),
            "content": items(_CONTENT),
            "stop_reason": _REASON,
            "stop_sequence": nullable(text("Which of them it was.")),
            "usage": answer({**_COUNTS, "service_tier": words("standard")}),
        }
    ),
    "MessageEvent": record(
        {
            "type": words(
                *("message_start", "content_block_start", "ping", "content_block_delta"),
                *("content_block_stop", "message_delta", "message_stop", "error"),
            ),
            "message": ref("Message"),
            "index": integer(0),
            "content_block": _CONTENT,
            "delta": {"type": "object"},
            "usage": answer(_COUNTS),
            "error": {"type": "object"},
        },
        "The data of each event, whose name is its type.",
        required=("type",),
    ),
    "MessageTokens": answer({"input_tokens": _TOKENS}),
    "MessageError": answer(
        {
            "type": words("error"),
            "error": answer(
                {
                    "type": text("The class of the error, as Anthropic names it."),
                    "message": text("For people: the number, the limit and the flag that sets it."),
                    "details": answer(
                        {"error_code": text("One stable word per reason."), "param": text()},
                        maybe=("param",),
                    ),
                }
            ),
            "request_id": text("As in the header."),
        },
        "Every 4xx and 5xx on these routes.",
    ),
}

_HI = {"model": _MODEL, "messages": [{"role": "user", "content": "Hello!"}]}
_ASK = {**_HI, "max_tokens": 16}
_WEATHER = {
    "name": "get_weather",
    "description": "The weather at a place.",
    "input_schema": {
        "type": "object",
        "properties": {"place": {"type": "string", "maxLength": 20}},
        "required": ["place"],
        "additionalProperties": False,
    },
}
_EXAMPLES = {
    "plain": Example("A question", _ASK),
    "streamed": Example("The answer as it is made", {**_ASK, "stream": True}),
    "tools": Example(
        "A call that the model must make",
        {**_ASK, "max_tokens": 64, "tools": [_WEATHER], "tool_choice": {"type": "any"}},
    ),
    "refused": Example("No max_tokens", _HI, status=400),
}
_USAGE = {
    "input_tokens": 9,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 3,
    "output_tokens_details": {"thinking_tokens": 0},
    "service_tier": "standard",
}
_ANSWER = {
    "id": "msg_4d1c",
    "type": "message",
    "role": "assistant",
    "model": _MODEL,
    "content": [{"type": "text", "text": "Hello!"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": _USAGE,
}
_STREAM = (
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    '"delta":{"type":"text_delta","text":"Hello!"}}\n\n'
    'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
_REFUSED: Schema = {
    str(status): {
        "description": "As on every route, in Anthropic's words.",
        "content": {JSON: {"schema": ref("MessageError")}},
    }
    for status in CALLING
}


def _spoken(operation: Schema) -> Schema:
    """The operation with Anthropic's refusals in place of OpenAI's."""
    told = operation["responses"]
    responses = told if isinstance(told, dict) else {}
    return {**operation, "responses": {**responses, **_REFUSED}}


PATHS: dict[str, Schema] = {
    "/v1/messages": {
        "post": _spoken(
            call(
                About(
                    "createMessage",
                    "Messages",
                    "Answer a conversation, in Anthropic's dialect",
                    "With `stream` the answer comes as named server-sent events, the last"
                    " `message_stop`.",
                ),
                request="MessageRequest",
                examples=_EXAMPLES,
                responses={
                    JSON: shown(ref("Message"), _ANSWER),
                    SSE: events(ref("MessageEvent"), _STREAM),
                },
            )
        )
    },
    "/v1/messages/count_tokens": {
        "post": _spoken(
            call(
                About("countMessageTokens", "Messages", "How many tokens a conversation has"),
                request="MessageCountRequest",
                examples={
                    "counted": Example("A question", _HI),
                    "refused": Example("No messages", {"model": _MODEL}, status=400),
                },
                responses={JSON: shown(ref("MessageTokens"), {"input_tokens": 12})},
            )
        )
    },
}
