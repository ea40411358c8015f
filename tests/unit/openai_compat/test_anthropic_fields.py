"""Every field of a messages request: works, or 400 naming it; and none that the SDK has is new."""

import json
import typing

import pytest
from anthropic.types import (
    ContentBlockParam,
    ToolUnionParam,
    message_count_tokens_params,
    message_create_params,
)
from anthropic.types.beta import message_create_params as beta_params

from openai_compat.anthropic import schema
from openai_compat.anthropic.lower import count_tokens
from openai_compat.anthropic.render import MessageRenderer
from openai_compat.errors import RequestRejected
from tests.support.messages import HELLO, THINKER, WEATHER, message, request
from tests.support.tokenizers import CALL

# Sent as headers by the SDK.
HEADERS = {"betas", "user_profile_id", "workspace_id"}
SCHEMA = {"type": "json_schema", "schema": {"type": "object"}}
TOOLS = {"tools": [WEATHER]}


def block(**fields):
    return [{"role": "user", "content": [fields]}]


def tool(**fields):
    return [{**WEATHER, **fields}]


# field -> values that work, and (value, what the refusal names) of those that do not
FIELDS = {
    "model": (["tiny"], []),
    "max_tokens": ([1, 50, 10**6], [(0, ""), (-1, ""), ("5", ""), (1.5, ""), (None, "")]),
    "messages": (
        [[HELLO], [{"role": "user", "content": [{"type": "text", "text": "x"}]}]],
        [
            ([], ""),
            (None, ""),
            ("hello", ""),
            (["hello"], "[0]"),
            ([{"content": "x"}], "[0].role"),
            ([{"role": "tool", "content": "x"}], "[0].role"),
            ([{"role": "user"}], "[0].content"),
            ([{"role": "user", "content": ["x"]}], "[0].content[0]"),
            (block(), "[0].content[0].type"),
            (block(type="text"), "[0].content[0].text"),
            (block(type="text", text=5), "[0].content[0].text"),
            (block(type="text", text="x", citations=[{}]), "[0].content[0].citations"),
            (block(type="nope"), "[0].content[0].type"),
            (block(type="tool_use"), "[0].content[0].type"),
            (block(type="image", source={}), "[0].content[0].type"),
            (block(type="document", source={}), "[0].content[0].type"),
            (block(type="tool_result"), "[0].content[0].tool_use_id"),
            (block(type="tool_result", tool_use_id="a", is_error=1), "[0].content[0].is_error"),
            (
                block(type="tool_result", tool_use_id="a", content=[{"type": "image"}]),
                "[0].content[0].content[0].type",
            ),
            (
                block(type="text", text="x", cache_control={"type": "forever"}),
                "[0].content[0].cache_control.type",
            ),
            (
                block(type="text", text="x", cache_control={"type": "ephemeral", "ttl": "2h"}),
                "[0].content[0].cache_control.ttl",
            ),
            (
                [HELLO, {"role": "assistant", "content": [{"type": "tool_use", "input": "x"}]}],
                "[1].content[0].input",
            ),
        ],
    ),
    "system": (
        ["be kind", "", None, [], [{"type": "text", "text": "be kind"}]],
        [(5, ""), ([{"type": "image"}], "[0].type"), (["x"], "[0]")],
    ),
    "stream": ([True, False, None], [(1, ""), ("yes", "")]),
    "stop_sequences": (
        [[], ["END"], ["é"] * 16, None],
        [("END", ""), ([""], "[0]"), ([5], "[0]"), (["x" * 257], "[0]"), (["x"] * 17, "")],
    ),
    "temperature": ([0, 0.5, 1, None], [(1.5, ""), (-0.1, ""), ("1", "")]),
    "top_p": ([0.1, 1], [(0, ""), (1.1, "")]),
    "top_k": ([0, 1, 40], [(-1, ""), (1.5, "")]),
    "metadata": (
        [{}, {"user_id": "u"}, {"user_id": None}],
        [("u", ""), ({"user_id": 5}, ".user_id"), ({"user_id": "x" * 513}, ".user_id")],
    ),
    "service_tier": (["auto", "standard_only"], [("priority", ""), (5, "")]),
    "cache_control": (
        [{"type": "ephemeral"}, {"type": "ephemeral", "ttl": "5m"}],
        [({}, ".type"), ("ephemeral", "")],
    ),
    "tools": (
        [[], tool(), tool(type="custom"), tool(strict=True), tool(allowed_callers=["direct"])],
        [
            ({}, ""),
            (["x"], "[0]"),
            (tool(type="web_search_20250305"), "[0].type"),
            (tool(name="a b"), "[0].name"),
            (tool(name="x" * 129), "[0].name"),
            (tool(input_schema=None), "[0].input_schema"),
            (tool(input_schema={"type": "string"}), "[0].input_schema.type"),
            (tool(description=5), "[0].description"),
            (tool(defer_loading=True), "[0].defer_loading"),
            (tool(eager_input_streaming=False), "[0].eager_input_streaming"),
            (tool(input_examples=[{"q": "x"}]), "[0].input_examples"),
            (tool(allowed_callers=["code_execution_20250825"]), "[0].allowed_callers"),
            (tool(strict=True, input_schema={"type": "object", "not": {}}), "[0].input_schema.not"),
            ([WEATHER, WEATHER], "[1]"),
        ],
    ),
    "tool_choice": (
        [
            {"type": "auto", "disable_parallel_tool_use": True},
            {"type": "any"},
            {"type": "tool", "name": "get_weather"},
            {"type": "none"},
        ],
        [
            ("auto", ""),
            ({}, ".type"),
            ({"type": "some"}, ".type"),
            ({"type": "tool"}, ".name"),
            ({"type": "tool", "name": "x"}, ".name"),
            ({"type": "any", "disable_parallel_tool_use": 1}, ".disable_parallel_tool_use"),
        ],
    ),
    "thinking": (
        [
            {"type": "disabled"},
            {"type": "adaptive"},
            {"type": "adaptive", "display": "omitted"},
            {"type": "enabled", "budget_tokens": 10, "display": "summarized"},
        ],
        [
            ({}, ".type"),
            ({"type": "on"}, ".type"),
            ({"type": "between_tools"}, ".type"),
            ({"type": "enabled"}, ".budget_tokens"),
            ({"type": "enabled", "budget_tokens": 50}, ".budget_tokens"),
            ({"type": "adaptive", "budget_tokens": 10}, ".budget_tokens"),
            ({"type": "adaptive", "display": "no"}, ".display"),
        ],
    ),
    "output_config": (
        [{}, {"format": SCHEMA}, {"effort": "high"}, {"effort": "low"}],
        [
            ({"effort": "huge"}, ".effort"),
            ({"task_budget": {"type": "tokens", "total": 5}}, ".task_budget"),
            ({"format": {"type": "text"}}, ".format.type"),
            ({"format": {"type": "json_schema"}}, ".format.schema"),
        ],
    ),
    "output_format": ([SCHEMA], [("json", ""), ({"schema": {}}, ".type")]),
    "speed": (["standard"], [("fast", "")]),
    "container": ([None], [("c", ""), ({"id": "c"}, "")]),
    "mcp_servers": ([[], None], [([{"type": "url", "url": "http://x", "name": "x"}], "")]),
    "context_management": (
        [None, {"edits": []}, {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}],
        [({"edits": [{"type": "clear_tool_uses_20250919"}]}, "")],
    ),
    "diagnostics": ([None], [({"previous_message_id": None}, "")]),
    "inference_geo": ([None], [("eu", "")]),
    "billing_policy": ([None], [({}, "")]),
    "compaction": ([None], [({}, "")]),
    "fallback_credit_token": ([None], [("x", "")]),
    "fallbacks": ([[], None], [([{"model": "x"}], "")]),
    "thread": ([None], [({}, "")]),
}
NEEDS = {"tool_choice": TOOLS}


def rows(which):
    return [
        pytest.param(name, value, id=f"{name}-{json.dumps(value)[:60]}")
        for name, row in FIELDS.items()
        for value in row[which]
    ]


def lower(name, value):
    return message(THINKER, **{**NEEDS.get(name, {}), name: value})


def test_every_known_field_has_a_row():
    """And no other."""
    assert set(FIELDS) == schema.KNOWN


@pytest.mark.parametrize(("name", "value"), rows(0))
def test_a_value_that_can_be_followed_is_taken(name, value):
    """Without a word about it being ignored."""
    job = lower(name, value)
    assert job.ignored == ()
    assert isinstance(job.renderer, MessageRenderer)
    assert job.stream is (name == "stream" and value is True)


@pytest.mark.parametrize(("name", "case"), rows(1))
def test_a_value_that_cannot_be_followed_is_refused_by_name(name, case):
    """400, the place in full, and nothing of the input in the words."""
    value, place = case
    with pytest.raises(RequestRejected) as refused:
        lower(name, value)
    reply = refused.value.reply
    assert (reply.status, reply.param) == (400, name + place)
    assert not (isinstance(value, str) and len(value) > 3 and f"'{value}'" in reply.message)


def test_a_field_that_must_be_there_is_named():
    """As Anthropic's own servers do."""
    for name in ("max_tokens", "messages"):
        with pytest.raises(RequestRejected) as refused:
            message(THINKER, **{name: None})
        assert refused.value.reply.param == name


def of_the_answer(name, case):
    """Whether a refusal needs what counting does not read: the answer's limit, or its grammar."""
    value, place = case
    budget = name == "thinking" and value.get("budget_tokens") == 50
    return name not in schema.KNOWN_TO_COUNT or budget or place.endswith(".not")


@pytest.mark.parametrize(
    ("name", "case"), [row for row in rows(1) if not of_the_answer(*row.values)]
)
def test_counting_refuses_what_it_reads(name, case):
    """The same fields with the same words."""
    value, place = case
    with pytest.raises(RequestRejected) as refused:
        count_tokens({**request(), **NEEDS.get(name, {}), name: value}, THINKER, CALL)
    assert refused.value.reply.param == name + place


def sdk_fields(*types):
    found = set()
    for each in types:
        found |= set(typing.get_type_hints(each))
    return found - HEADERS


def test_every_field_of_the_sdk_is_known():
    """Both its stable and its beta parameters, streaming or not."""
    fields = sdk_fields(
        message_create_params.MessageCreateParamsStreaming,
        beta_params.MessageCreateParamsStreaming,
    )
    assert fields <= schema.KNOWN
    counting = sdk_fields(message_count_tokens_params.MessageCountTokensParams)
    assert counting <= schema.KNOWN_TO_COUNT


def wire_types(union):
    """The values of `type` of a union of the SDK's parameters."""
    for each in typing.get_args(union):
        kind = typing.get_type_hints(each).get("type")
        yield from (value for value in _literals(kind) if value is not None)


def _literals(hint):
    arguments = typing.get_args(hint)
    for argument in arguments:
        if typing.get_args(argument):
            yield from _literals(argument)
        elif isinstance(argument, str):
            yield argument


BLOCKS = sorted(set(wire_types(ContentBlockParam)))
UNDERSTOOD = {"text", "tool_result", "thinking", "redacted_thinking", "tool_use"}
TOOL_TYPES = sorted(set(wire_types(ToolUnionParam)) - {"custom"})


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind not in UNDERSTOOD])
def test_every_other_block_of_the_sdk_is_refused_as_unsupported(kind):
    """Not as unknown: the client did nothing wrong."""
    with pytest.raises(RequestRejected) as refused:
        message(messages=block(type=kind))
    assert refused.value.reply.code == "unsupported_parameter"
    assert refused.value.reply.param == "messages[0].content[0].type"


def test_the_blocks_understood_are_the_sdks():
    """The list above is not a wish."""
    assert set(BLOCKS) >= UNDERSTOOD
    assert len(BLOCKS) > 10


@pytest.mark.parametrize("kind", TOOL_TYPES)
def test_tools_of_anthropics_own_are_refused(kind):
    """Their schemas live in Anthropic's models, and some run on Anthropic's servers."""
    with pytest.raises(RequestRejected) as refused:
        message(THINKER, tools=[{"type": kind, "name": "x"}])
    assert refused.value.reply.param == "tools[0].type"
