"""Responses, described: what is asked, what comes back, what is kept."""

from openai_compat.conversation.thinking import EFFORTS
from openai_compat.openapi.chat import DESCRIBED as CHAT
from openai_compat.openapi.generation import FIELDS
from openai_compat.openapi.operations import (
    JSON,
    SSE,
    About,
    Example,
    call,
    events,
    reading,
    shown,
)
from openai_compat.openapi.shapes import (
    Schema,
    answer,
    choice,
    flag,
    integer,
    items,
    nullable,
    record,
    ref,
    request,
    text,
    words,
)
from openai_compat.responses.items import MAX_ITEMS
from openai_compat.responses.lower import MAX_TOP_LOGPROBS
from openai_compat.responses.schema import KNOWN, LOGPROBS, UNSUPPORTED
from openai_compat.responses.snapshot import Status
from openai_compat.sampling import MAX_TOKENS

_MODEL = "penstock-tiny"
_INPUT: Schema = {
    "anyOf": [text(), items({"type": "object"}, minItems=1, maxItems=MAX_ITEMS)],
    "description": "A text, or items: messages, function calls and their outputs, reasoning, and"
    " references to stored items.",
}
_EFFORT = choice("For models whose template reads it.", *EFFORTS)
DESCRIBED: dict[str, Schema] = {
    **FIELDS,
    **{name: CHAT[name] for name in ("metadata", "prompt_cache_key", "safety_identifier")},
    "input": _INPUT,
    "instructions": text("A system message; it is not carried over to what continues this."),
    "previous_response_id": text("Continue a stored response.", maxLength=256),
    "background": flag("Generate apart from this connection; needs `store`."),
    "store": flag("Keep the response for later.", default=True),
    "include": items(words(LOGPROBS), "Tell how likely each token was."),
    "top_logprobs": integer(0, MAX_TOP_LOGPROBS, "Also the likeliest others; needs `include`."),
    "max_output_tokens": integer(1, MAX_TOKENS, "At most so many tokens, reasoning included."),
    "max_tool_calls": integer(1, MAX_TOKENS, "Bounds built-in tools, of which there are none."),
    "parallel_tool_calls": flag("Several calls in one turn.", default=True),
    "tools": items({"type": "object"}, "Functions: `{type, name, description, parameters}`."),
    "tool_choice": {"description": "auto, none, required, a function, or allowed_tools."},
    "text": record(
        {
            "format": nullable({"type": "object", "description": "text, json_object, json_schema"}),
            "verbosity": nullable(choice("For models whose template reads it.", "medium")),
        }
    ),
    "reasoning": record({"effort": nullable(_EFFORT), "summary": nullable(words("auto"))}),
    "truncation": choice("Whether the oldest items go until it fits.", "auto", "disabled"),
    "stream_options": record(
        {"include_obfuscation": nullable(flag("Pad the deltas against traffic analysis."))}
    ),
}

_ITEM: Schema = {
    "type": "object",
    "required": ["id", "type", "status"],
    "description": "A message, reasoning, a function call or its output.",
}
_WHATEVER: Schema = {"description": "As it was asked."}
SCHEMAS: dict[str, Schema] = {
    "ResponseRequest": request(KNOWN, UNSUPPORTED, DESCRIBED, required=("model", "input")),
    "ResponseUsage": answer(
        {
            "input_tokens": integer(0),
            "input_tokens_details": answer(
                {"cached_tokens": integer(0), "cache_write_tokens": integer(0)}
            ),
            "output_tokens": integer(0),
            "output_tokens_details": answer({"reasoning_tokens": integer(0)}),
            "total_tokens": integer(0),
        }
    ),
    "Response": answer(
        {
            "id": text(),
            "object": words("response"),
            "created_at": integer(0, None, "Unix seconds."),
            "status": choice("", *Status),
            "error": nullable(answer({"code": text(), "message": text()})),
            "incomplete_details": nullable(answer({"reason": words("max_output_tokens")})),
            "output": items(_ITEM),
            "usage": nullable(ref("ResponseUsage")),
            "model": text("As the request named it."),
            "background": flag(""),
            "store": flag(""),
            **dict.fromkeys(
                (
                    *("instructions", "max_output_tokens", "max_tool_calls", "metadata"),
                    *("parallel_tool_calls", "previous_response_id", "prompt_cache_key"),
                    *("reasoning", "safety_identifier", "service_tier", "temperature", "text"),
                    *("tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
                ),
                _WHATEVER,
            ),
        }
    ),
    "ResponseEvent": record(
        {"type": text(), "sequence_number": integer(0)},
        "The data of each event of a stream, which ends with that of the final response.",
        required=("type", "sequence_number"),
    ),
    "ResponseItems": answer(
        {
            "object": words("list"),
            "data": items(_ITEM),
            "first_id": nullable(text()),
            "last_id": nullable(text()),
            "has_more": {"type": "boolean"},
        }
    ),
}

_HI = {"model": _MODEL, "input": "Hi!"}
_ECHO: Schema = {
    "instructions": None,
    "max_output_tokens": 8,
    "max_tool_calls": None,
    "model": _MODEL,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
    "background": False,
    "store": True,
}
_SAID = {
    "id": "msg_4d1c_0",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello."}],
}
_ASKED: Schema = {
    "id": "msg_4d1c_i0",
    "type": "message",
    "status": "completed",
    "role": "user",
    "content": [{"type": "input_text", "text": "Hi!"}],
}
_RESPONSE: Schema = {
    "id": "resp_4d1c",
    "object": "response",
    "created_at": 1700000000,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "output": [_SAID],
    **_ECHO,
    "usage": {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 12,
    },
}
_STREAM = (
    "event: response.output_text.delta\n"
    'data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_4d1c_0",'
    '"output_index":0,"content_index":0,"delta":"Hello","logprobs":[]}\n\n'
)
_LISTED = {
    "object": "list",
    "data": [_ASKED],
    "first_id": _ASKED["id"],
    "last_id": _ASKED["id"],
    "has_more": False,
}
_COUNTED = answer({"object": words("response.input_tokens"), "input_tokens": integer(0)})
_WHOLE = {JSON: shown(ref("Response"), _RESPONSE)}
_EITHER = {**_WHOLE, SSE: events(ref("ResponseEvent"), _STREAM)}
_TAG = "Responses"


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


_NAMED: Schema = {
    "name": "response_id",
    "in": "path",
    "required": True,
    "schema": text(),
    "example": "resp_4d1c",
}
_FETCHED: Schema = {
    "parameters": [
        _NAMED,
        _query("stream", flag("The events, from the first or after `starting_after`.")),
        _query("starting_after", integer(0, None, "The last event that is there already.")),
        _query("include_obfuscation", flag("As the response was made.")),
    ]
}
_PAGED: Schema = {
    "parameters": [
        _NAMED,
        _query("limit", integer(1, 100, "", default=20)),
        _query("order", words("asc", "desc")),
        _query("after", text("The last item of the page before.")),
    ]
}
PATHS: dict[str, Schema] = {
    "/v1/responses": {
        "post": call(
            About(
                "createResponse",
                _TAG,
                "Answer",
                "OpenAI's responses. With `stream` the answer comes as server-sent events, each a"
                " ResponseEvent, the last with the final response.",
            ),
            request="ResponseRequest",
            examples={
                "plain": Example("A question", {**_HI, "max_output_tokens": 8}),
                "streamed": Example(
                    "The answer as it is made", {**_HI, "max_output_tokens": 8, "stream": True}
                ),
                "background": Example(
                    "Apart from the connection",
                    {**_HI, "max_output_tokens": 8, "background": True},
                ),
                "refused": Example("No input", {"model": _MODEL}, status=400),
            },
            responses=_EITHER,
        )
    },
    "/v1/responses/input_tokens": {
        "post": call(
            About("countInputTokens", _TAG, "Count the input of a response"),
            request="ResponseRequest",
            examples={
                "plain": Example("A question", _HI),
                "refused": Example("No input", {"model": _MODEL}, status=400),
            },
            responses={
                JSON: shown(_COUNTED, {"object": "response.input_tokens", "input_tokens": 9})
            },
        )
    },
    "/v1/responses/{response_id}": {
        "get": reading(
            About("retrieveResponse", _TAG, "A stored response, or its events"),
            _EITHER,
            more=_FETCHED,
        ),
        "delete": reading(
            About("deleteResponse", _TAG, "Forget a response"),
            {
                JSON: shown(
                    answer({"id": text(), "object": words("response"), "deleted": flag("")}),
                    {"id": "resp_4d1c", "object": "response", "deleted": True},
                )
            },
            more={"parameters": [_NAMED]},
        ),
    },
    "/v1/responses/{response_id}/cancel": {
        "post": reading(
            About("cancelResponse", _TAG, "End a response in the background"),
            _WHOLE,
            more={"parameters": [_NAMED]},
        )
    },
    "/v1/responses/{response_id}/input_items": {
        "get": reading(
            About("listInputItems", _TAG, "What a response was given, newest first"),
            {JSON: shown(ref("ResponseItems"), _LISTED)},
            more=_PAGED,
        )
    },
}
