"""Every field of a response request: what it does, or how it is refused."""

import json
import typing

import pytest
from openai.types.responses import input_token_count_params, response_create_params

from engines.api import Capability
from openai_compat.conversation.ask import ToolMode
from openai_compat.conversation.formats import FORMAT_FIELDS
from openai_compat.engine_extras import EXTRAS_FIELDS
from openai_compat.errors import RequestRejected
from openai_compat.fields import Fields
from openai_compat.responses import schema
from openai_compat.responses.tools import read_tools
from tests.support.messages import THINKER, ids, token_events
from tests.support.responses import WEATHER, folded, request, response
from tests.support.tokenizers import CHATML, served_model

NAMED = {"type": "function", "name": "get_weather"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
          "additionalProperties": False}  # fmt: skip

# A value of each field that asks for something, and what the response repeats of it.
ECHOED = {
    "instructions": ("be brief", "be brief"),
    "max_output_tokens": (7, 7),
    "max_tool_calls": (3, 3),
    "metadata": ({"a": "b"}, {"a": "b"}),
    "parallel_tool_calls": (False, False),
    "prompt_cache_key": ("k", "k"),
    "safety_identifier": ("s", "s"),
    "service_tier": ("auto", "default"),
    "store": (False, False),
    "temperature": (0.5, 0.5),
    "top_p": (0.5, 0.5),
    "truncation": ("auto", "auto"),
    "user": ("u", "u"),
    "reasoning": ({"effort": "none", "summary": "auto"}, {"effort": "none", "summary": "auto"}),
    "text": ({"verbosity": "medium"}, {"format": {"type": "text"}, "verbosity": "medium"}),
    "background": (True, True),
    "previous_response_id": (None, None),
    "top_logprobs": (0, 0),
    "tool_choice": ("none", "none"),
    "model": ("tiny", "tiny"),
}
# Fields that are seen elsewhere than in the response.
TESTED_BELOW = {"include", "input", "stream", "stream_options", "tools"}

REFUSED = [
    ("access_programs", {"cyber": "standard"}, "access_programs"),
    ("background_options", {"completion_window": "2h"}, "background_options"),
    ("context_management", [{"type": "compaction"}], "context_management"),
    ("conversation", "conv_1", "conversation"),
    ("conversation", {"id": "conv_1"}, "conversation"),
    ("image", {"context_compression": "enabled"}, "image"),
    ("moderation", {"model": "m"}, "moderation"),
    ("personality", "friendly", "personality"),
    ("prompt", {"id": "pmpt_1"}, "prompt"),
    ("prompt_cache_options", {"mode": "explicit"}, "prompt_cache_options"),
    ("prompt_cache_retention", "24h", "prompt_cache_retention"),
    ("service_tier", "flex", "service_tier"),
    ("reasoning", {"summary": "detailed"}, "reasoning.summary"),
    ("reasoning", {"generate_summary": "concise"}, "reasoning.generate_summary"),
    ("reasoning", {"context": "all_turns"}, "reasoning.context"),
    ("reasoning", {"mode": "pro"}, "reasoning.mode"),
    ("include", ["reasoning.encrypted_content"], "include[0]"),
    ("include", ["message.output_text.logprobs", "file_search_call.results"], "include[1]"),
    ("tools", [{"type": "web_search"}], "tools[0].type"),
    ("tools", [WEATHER, {"type": "mcp", "server_label": "x"}], "tools[1].type"),
    ("tools", [{**WEATHER, "defer_loading": True}], "tools[0].defer_loading"),
    ("tools", [{**WEATHER, "async": True}], "tools[0].async"),
    ("tools", [{**WEATHER, "allowed_callers": ["programmatic"]}], "tools[0].allowed_callers"),
    ("tools", [{**WEATHER, "output_schema": {}}], "tools[0].output_schema"),
    ("tool_choice", {"type": "file_search"}, "tool_choice.type"),
    ("n", 2, "n"),
    ("stop", ["x"], "stop"),
    ("logprobs", True, "logprobs"),
    ("prompt_logprobs", 1, "prompt_logprobs"),
    ("truncate_prompt_tokens", 5, "truncate_prompt_tokens"),
    ("chat_template", "{{ x }}", "chat_template"),
    ("guided_json", {}, "guided_json"),
]  # fmt: skip
UNTOLD = [
    ("reasoning", {"effort": "high"}, "reasoning.effort"),
    ("text", {"verbosity": "low"}, "text.verbosity"),
]
WRONG = [
    ("input", None, "input"),
    ("input", [], "input"),
    ("input", 5, "input"),
    ("input", ["x"], "input[0]"),
    ("input", [{}], "input[0].type"),
    ("input", [{"type": 5}], "input[0].type"),
    ("instructions", ["x"], "instructions"),
    ("background", "yes", "background"),
    ("stream", 1, "stream"),
    ("store", "x", "store"),
    ("stream_options", [], "stream_options"),
    ("stream_options", {"include_obfuscation": 1}, "stream_options.include_obfuscation"),
    ("max_output_tokens", 0, "max_output_tokens"),
    ("max_output_tokens", 1.0, "max_output_tokens"),
    ("max_tool_calls", 0, "max_tool_calls"),
    ("metadata", {"a": 1}, "metadata"),
    ("previous_response_id", 5, "previous_response_id"),
    ("prompt_cache_key", 5, "prompt_cache_key"),
    ("safety_identifier", "x" * 513, "safety_identifier"),
    ("user", 5, "user"),
    ("temperature", 2.1, "temperature"),
    ("top_p", 0, "top_p"),
    ("top_logprobs", 21, "top_logprobs"),
    ("top_logprobs", 2, "top_logprobs"),
    ("truncation", "left", "truncation"),
    ("include", "x", "include"),
    ("include", ["nope"], "include[0]"),
    ("include", [5], "include[0]"),
    ("reasoning", "high", "reasoning"),
    ("reasoning", {"effort": "huge"}, "reasoning.effort"),
    ("text", "json", "text"),
    ("text", {"verbosity": "chatty"}, "text.verbosity"),
    ("text", {"format": "json"}, "text.format"),
    ("text", {"format": {"type": "xml"}}, "text.format.type"),
    ("text", {"format": {"type": "json_schema", "name": "a b", "schema": {}}}, "text.format.name"),
    ("text", {"format": {"type": "json_schema", "name": "a"}}, "text.format.schema"),
    ("parallel_tool_calls", 1, "parallel_tool_calls"),
    ("tools", {}, "tools"),
    ("tools", [5], "tools[0]"),
    ("tools", [{}], "tools[0].type"),
    ("tools", [{"type": "function"}], "tools[0].name"),
    ("tools", [WEATHER, WEATHER], "tools[1]"),
    ("tool_choice", "maybe", "tool_choice"),
    ("tool_choice", "required", "tool_choice"),
    ("tool_choice", NAMED, "tool_choice.name"),
    ("tool_choice", {"type": "allowed_tools", "tools": [NAMED]}, "tool_choice.mode"),
    ("tool_choice", {"type": "allowed_tools", "mode": "auto", "tools": []}, "tool_choice.tools"),
    ("tool_choice", {"type": "allowed_tools", "mode": "auto", "tools": [NAMED]},
     "tool_choice.tools[0].name"),
    ("tool_choice", {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]},
     "tool_choice.tools[0].type"),
    ("priority", 101, "priority"),
]  # fmt: skip


def elsewhere():
    """Names that only other routes have."""
    return FORMAT_FIELDS | EXTRAS_FIELDS | {
        "enable_thinking", "function_call", "functions", "max_completion_tokens", "max_tokens",
        "messages", "reasoning_effort", "thinking_budget", "thinking_token_budget", "verbosity",
    }  # fmt: skip


@pytest.mark.parametrize("field", sorted(elsewhere()))
def test_names_of_other_routes_are_refused(field):
    """The answer would not be as asked, and nothing would say so."""
    reply = refusal(**{field: {}})
    assert (reply.status, reply.code, reply.param) == (400, "unsupported_parameter", field)


def refusal(model=None, **fields):
    with pytest.raises(RequestRejected) as caught:
        response(*([model] if model else []), **fields)
    return caught.value.reply


def shown(**fields):
    return json.loads(response(**fields).renderer.body())


def test_no_field_of_the_sdk_is_unknown():
    """A new SDK that knows more makes this fail, and somebody decide."""
    fields = set(typing.get_type_hints(input_token_count_params.InputTokenCountParams))
    for kind in ("Streaming", "NonStreaming"):
        fields |= set(
            typing.get_type_hints(getattr(response_create_params, f"ResponseCreateParams{kind}"))
        )
    assert fields - schema.KNOWN == set()


def test_every_field_has_its_row():
    """Acted on or refused, never both; and each one is in a table here."""
    assert schema.ACTED_ON.isdisjoint(schema.UNSUPPORTED)
    documented = schema.ACTED_ON - schema.SAMPLING_FIELDS - {"priority"}
    assert documented <= ECHOED.keys() | TESTED_BELOW
    ours = schema.UNSUPPORTED.keys() - schema.ENGINE_EXTENSIONS.keys() - elsewhere()
    told = {field for field, _, _ in REFUSED}
    neutral_only = {"add_special_tokens", "cache_salt", "chat_template_kwargs", "echo",
                    "continue_final_message", "include_stop_str_in_output", "return_token_ids",
                    "skip_special_tokens"}  # fmt: skip
    assert ours <= told | neutral_only


@pytest.mark.parametrize("field", ECHOED)
def test_the_response_repeats_what_was_asked(field):
    """As OpenAI's does."""
    given, told = ECHOED[field]
    assert shown(**{field: given})[field] == told


def test_the_defaults_are_openais():
    """Of a request that says nothing."""
    body = shown()
    assert body | {
        "background": False, "instructions": None, "max_output_tokens": None, "metadata": {},
        "parallel_tool_calls": True, "previous_response_id": None, "store": True,
        "service_tier": "default", "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto",
        "tools": [], "truncation": "disabled", "top_logprobs": 0, "error": None,
        "incomplete_details": None, "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "reasoning": {"effort": None, "summary": None},
    } == body  # fmt: skip


@pytest.mark.parametrize(("field", "value", "param"), REFUSED)
def test_what_is_not_built_is_refused_by_name(field, value, param):
    """Ignoring it would give a wrong answer that looks right."""
    reply = refusal(**{field: value})
    assert (reply.status, reply.code, reply.param) == (400, "unsupported_parameter", param)


@pytest.mark.parametrize("field", schema.UNSUPPORTED)
def test_neutral_values_are_accepted(field):
    """SDKs and frameworks send defaults explicitly; they ask for nothing."""
    for value in (None, *schema.UNSUPPORTED[field]):
        assert response(**{field: value}).job.ignored == ()


@pytest.mark.parametrize(("field", "value", "param"), UNTOLD)
def test_what_the_model_cannot_be_told_is_refused(field, value, param):
    """Its template does not read it."""
    reply = refusal(**{field: value})
    assert (reply.status, reply.code, reply.param) == (400, "unsupported_by_model", param)


def test_effort_and_verbosity_reach_a_template_that_reads_them():
    """As the variables that templates have for them."""
    template = CHATML + "{{ reasoning_effort }} {{ verbosity }}"
    model = served_model(template=template)
    asked = response(model, reasoning={"effort": "low"}, text={"verbosity": "high"})
    assert model.tokenizer.decode(list(asked.job.requests[0].prompt)).endswith("low high")


@pytest.mark.parametrize(("field", "value", "param"), WRONG)
def test_a_wrong_value_is_refused_by_place(field, value, param):
    """And never repeated."""
    reply = refusal(**{field: value})
    assert (reply.status, reply.param) == (400, param)
    assert reply.code in ("invalid_value", "unsupported_parameter", "invalid_json_schema")


def test_max_output_tokens_is_the_limit():
    """And without one, the rest of the context is."""
    assert response(max_output_tokens=7).job.requests[0].sampling.max_tokens == 7
    limited = response().job.requests[0]
    assert limited.sampling.max_tokens == 512 - len(limited.prompt)


def test_a_prompt_that_is_too_long_is_refused():
    """With the code that clients look for."""
    reply = refusal(input="hello " * 600)
    assert (reply.code, reply.param) == ("context_length_exceeded", "input")
    reply = refusal(max_output_tokens=600)
    assert (reply.code, reply.param) == ("context_length_exceeded", "max_output_tokens")


def test_sampling_fields_work_as_in_chat():
    """Also the extensions that the other routes have."""
    sampling = response(temperature=0.5, top_p=0.9, seed=3, top_k=5).job.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.top_k) == (0.5, 0.9, 3, 5)
    assert response(priority=5).job.requests[0].priority == 5


def test_stream_and_background_choose_the_delivery():
    """The background is rendered as a stream also when nobody listens yet."""
    assert response(stream=True).job.stream
    assert not response().job.stream
    asked = response(background=True)
    assert asked.delivery.background
    assert asked.renderer.begin() != b""


def test_background_needs_a_store():
    """Nobody could fetch the response otherwise."""
    assert refusal(background=True, store=False).param == "background"


def test_without_a_store_nothing_is_kept_and_nobody_told_otherwise():
    """`store` is false by default then, and true is refused."""
    assert not json.loads(response(keeps=False).renderer.body())["store"]
    reply = refusal(keeps=False, store=True)
    assert (reply.code, reply.param) == ("unsupported_parameter", "store")
    assert refusal(keeps=False, background=True).param == "background"


def use(**fields):
    return read_tools(Fields(request(**fields)))[0]


def test_tools_are_flat_functions():
    """And come back as they were sent, with their defaults."""
    tool = use(tools=[WEATHER]).tools[0]
    assert (tool.name, tool.parameters, tool.strict) == (
        "get_weather", WEATHER["parameters"], False
    )  # fmt: skip
    body = json.loads(response(THINKER, tools=[WEATHER]).renderer.body())
    assert body["tools"] == [WEATHER]


@pytest.mark.parametrize(
    ("choice", "mode", "allowed", "named"),
    [
        (None, ToolMode.AUTO, None, False),
        ("auto", ToolMode.AUTO, None, False),
        ("none", ToolMode.NONE, None, False),
        ("required", ToolMode.REQUIRED, None, False),
        (NAMED, ToolMode.REQUIRED, {"get_weather"}, True),
        ({"type": "allowed_tools", "mode": "auto", "tools": [NAMED]}, ToolMode.AUTO,
         {"get_weather"}, False),
        ({"type": "allowed_tools", "mode": "required", "tools": [NAMED]}, ToolMode.REQUIRED,
         {"get_weather"}, False),
    ],
)  # fmt: skip
def test_tool_choices(choice, mode, allowed, named):
    """Each kind that the SDK has for functions."""
    read = use(tools=[WEATHER, {**WEATHER, "name": "other"}], tool_choice=choice)
    assert (read.mode, read.allowed, read.named) == (mode, allowed and frozenset(allowed), named)
    assert use(parallel_tool_calls=False).parallel is False


@pytest.mark.parametrize(
    ("form", "constrained"),
    [
        ({"type": "text"}, False),
        ({"type": "json_object"}, True),
        ({"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}, True),
    ],
)
def test_text_formats(form, constrained):
    """The same grammar as in chat, named by this route's field; the response repeats it."""
    asked = response(text={"format": form})
    assert (asked.job.constraint is not None) == constrained
    told = json.loads(asked.renderer.body())["text"]["format"]
    assert told["type"] == form["type"]
    if form["type"] == "json_schema":
        assert (told["schema"], told["name"], told["strict"]) == (SCHEMA, "a", True)
    if constrained:
        assert asked.job.constraint.param == "text.format"
        without = served_model(capabilities=set(Capability) - {Capability.GRAMMAR})
        assert refusal(without, text={"format": form}).param == "text.format"


def test_include_logprobs():
    """With the number of alternatives beside it."""
    include = ["message.output_text.logprobs"]
    assert response(include=include).job.requests[0].sampling.logprobs == 0
    assert response(include=include, top_logprobs=3).job.requests[0].sampling.logprobs == 3
    assert response().job.requests[0].sampling.logprobs is None


def test_unknown_fields_are_ignored_and_listed():
    """Wherever they stand."""
    asked = response(
        THINKER,
        made_up=1,
        stream_options={"extra": 1},
        reasoning={"odd": 1},
        text={"strange": 1, "format": {"type": "text", "more": 1}},
        tools=[{**WEATHER, "cache_control": {}}],
        input=[{"role": "user", "content": [{"type": "input_text", "text": "a", "x": 1}], "y": 2}],
    )
    assert set(asked.job.ignored) == {
        "made_up", "stream_options.extra", "reasoning.odd", "text.strange", "text.format.more",
        "tools.cache_control", "input.x", "input.y",
    }  # fmt: skip


def test_the_id_comes_from_the_call():
    """So that any replica gives the same one; its items carry it."""
    body = folded(response(), token_events("hello"))
    assert body["id"] == "resp_abc123"
    assert body["output"][0]["id"] == "msg_abc123_0"
    assert ids("hello")
