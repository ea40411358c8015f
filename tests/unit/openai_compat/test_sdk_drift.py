"""Every field that the installed SDK can send is known: acted on, or refused when it asks."""

import typing

import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params

from openai_compat.chat import schema as chat_schema
from openai_compat.completions import schema as text_schema

ROUTES = {"chat": (chat_params, chat_schema), "completions": (text_params, text_schema)}


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
