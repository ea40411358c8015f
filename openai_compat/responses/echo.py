"""The fields of a request that every snapshot of its response repeats, with their defaults."""

from collections.abc import Mapping

from engines.api import Sampling
from openai_compat.conversation.ask import Conversation, Tool
from openai_compat.fields import Fields
from openai_compat.options import check_metadata

_MAX_HINT_CHARS = 512
_MAX_TOOL_CALLS = 2**31 - 1


def echo(
    fields: Fields, model: str, conversation: Conversation, sampling: Sampling
) -> dict[str, object]:
    """The fields, in OpenAI's order. Checks those that only label the call.

    `max_tool_calls` bounds built-in tools, of which there are none: any bound holds.
    """
    check_metadata(fields)
    return {
        "instructions": fields.raw("instructions"),
        "max_output_tokens": fields.raw("max_output_tokens"),
        "max_tool_calls": fields.integer("max_tool_calls", 1, _MAX_TOOL_CALLS),
        "model": model,
        "parallel_tool_calls": conversation.tool_use.parallel,
        "previous_response_id": fields.raw("previous_response_id"),
        "prompt_cache_key": fields.text("prompt_cache_key", _MAX_HINT_CHARS),
        "reasoning": _reasoning(fields),
        "safety_identifier": fields.text("safety_identifier", _MAX_HINT_CHARS),
        "service_tier": "default",
        "temperature": sampling.temperature,
        "text": _text(fields),
        "tool_choice": fields.raw("tool_choice") or "auto",
        "tools": [_tool(tool) for tool in conversation.tool_use.tools],
        "top_logprobs": fields.raw("top_logprobs") or 0,
        "top_p": sampling.top_p,
        "truncation": fields.raw("truncation") or "disabled",
        "user": fields.text("user", _MAX_HINT_CHARS),
        "metadata": fields.raw("metadata") or {},
    }


def _reasoning(fields: Fields) -> Mapping[str, object]:
    given = fields.nested("reasoning") or Fields({})
    return {"effort": given.raw("effort"), "summary": given.raw("summary")}


def _text(fields: Fields) -> Mapping[str, object]:
    text = fields.nested("text") or Fields({})
    form = text.nested("format") or Fields({})
    told: dict[str, object] = {"type": form.raw("type") or "text"}
    if told["type"] == "json_schema":
        names = ("description", "name", "schema")
        told |= {**{name: form.raw(name) for name in names}, "strict": form.flag("strict")}
    return {"format": told, "verbosity": text.raw("verbosity") or "medium"}


def _tool(tool: Tool) -> Mapping[str, object]:
    return {
        "type": "function",
        "description": tool.description or None,
        "name": tool.name,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
