"""Every field that the installed SDK can send is known: acted on, or refused when it asks."""

import typing

import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params

from openai_compat.chat import schema as chat_schema
from openai_compat.completions import schema as text_schema

ROUTES = {"chat": (chat_params, chat_schema), "completions": (text_params, text_schema)}

# Values that ask for nothing, as the SDK's documentation states the defaults.
NEUTRAL = {
    "chat": {
        "function_call": "none",
        "functions": [],
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "store": False,
        "tool_choice": "auto",
        "tools": [],
        "verbosity": "medium",
        "chat_template_kwargs": {},
        "skip_special_tokens": True,
        "stream_options": {"include_usage": False, "include_obfuscation": True},
        "length_penalty": 1.0,
    },
    "completions": {"suffix": "", "best_of": 1, "use_beam_search": False},
}
ASKING = {
    "chat": {
        "audio": {"voice": "alloy", "format": "wav"},
        "chat_template": "{{ messages }}",
        "function_call": {"name": "f"},
        "functions": [{"name": "f"}],
        "guided_json": {"type": "object"},
        "modalities": ["text", "audio"],
        "moderation": {"model": "m"},
        "parallel_tool_calls": False,
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_retention": "24h",
        "reasoning_effort": "high",
        "response_format": {"type": "json_object"},
        "service_tier": "flex",
        "store": True,
        "stream_options.continuous_usage_stats": True,
        "tool_choice": "required",
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "use_beam_search": 1,
        "verbosity": "low",
        "web_search_options": {},
    },
    "completions": {
        "suffix": "x",
        "best_of": 2,
        "prompt_logprobs": 0,
        "guided_regex": "a",
        "truncate_prompt_tokens": -1,
    },
}


@pytest.mark.parametrize("route", ROUTES)
def test_no_field_of_the_sdk_is_unknown(route):
    """A new SDK that knows more makes this fail, and somebody decide."""
    params, schema = ROUTES[route]
    fields = set()
    for kind in (params.CompletionCreateParamsStreaming, params.CompletionCreateParamsNonStreaming):
        fields |= set(typing.get_type_hints(kind))
    assert fields - schema.KNOWN == set()


@pytest.mark.parametrize("route", ROUTES)
def test_a_field_is_acted_on_or_refused_never_both(route):
    """The two lists are apart."""
    schema = ROUTES[route][1]
    assert schema.ACTED_ON.isdisjoint(schema.UNSUPPORTED)


def lower(route, chat, complete, field, value):
    if "." in field:
        outer, field = field.split(".")
        field, value = outer, {field: value}
    return (chat if route == "chat" else complete)(**{field: value})


@pytest.mark.parametrize(
    ("route", "field"), [(route, field) for route, fields in NEUTRAL.items() for field in fields]
)
def test_neutral_values_are_accepted(chat, complete, route, field):
    """SDKs and frameworks send defaults explicitly; they ask for nothing."""
    job = lower(route, chat, complete, field, NEUTRAL[route][field])
    assert job.ignored == ()


@pytest.mark.parametrize(
    ("route", "field"), [(route, field) for route, fields in ASKING.items() for field in fields]
)
def test_values_that_ask_are_refused_by_name(chat, complete, refusal, route, field):
    """Ignoring them would give a wrong answer that looks right."""
    reply = refusal(lambda: lower(route, chat, complete, field, ASKING[route][field]))
    assert (reply.status, reply.code, reply.param) == (400, "unsupported_parameter", field)


def test_unknown_fields_are_ignored_and_listed(chat):
    """Never silently: names come back, and the route decides which of them a header may hold."""
    job = chat(
        made_up=1,
        another="x",
        stream_options={"extra": 1},
        messages=[{"role": "user", "content": "a", "cache_control": {}}],
        **{"bad\r\nname": 1},
    )
    assert job.ignored == (
        "made_up",
        "another",
        "bad\r\nname",
        "stream_options.extra",
        "messages.cache_control",
    )
