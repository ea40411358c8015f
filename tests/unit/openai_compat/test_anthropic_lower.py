"""A messages request to a prompt and an engine request, by value."""

import json

import pytest

from engines.api import ThinkingBudget
from openai_compat.anthropic.lower import count_tokens
from openai_compat.errors import RequestRejected
from tests.support.messages import (
    FULL,
    HELLO,
    PLAIN,
    SYNTAX,
    THINKER,
    WEATHER,
    message,
    prompt_of,
    request,
)
from tests.support.tokenizers import CALL, served_model

CALLED = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"q": "sea"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "wind"}
OPENING = "<|im_start|>assistant\n"


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(*content):
    return {"role": "assistant", "content": list(content)}


def text(value, **fields):
    return {"type": "text", "text": value, **fields}


def prompt(*messages, **fields):
    return prompt_of(message(THINKER, messages=list(messages), **fields))


def refused(model=THINKER, **fields):
    with pytest.raises(RequestRejected) as caught:
        message(model, **fields)
    return caught.value.reply


def test_strings_and_text_blocks_are_the_same():
    """Blocks are joined by line breaks; the system prompt leads."""
    expected = (
        "<|im_start|>system\nbe kind\nbe short<|im_end|>\n"
        "<|im_start|>user\nhello\nworld<|im_end|>\n" + OPENING
    )
    cached = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    blocks = [text("be kind", **cached), text("be short")]
    assert prompt(user(text("hello"), text("world", **cached)), system=blocks) == expected
    one = {"role": "user", "content": "hello\nworld"}
    assert prompt(one, system="be kind\nbe short") == expected


def test_messages_of_one_role_in_a_row_are_one_turn():
    """As Anthropic combines them."""
    apart = prompt(HELLO, {"role": "user", "content": "world"})
    assert apart == prompt(user(text("hello"), text("world")))


def test_a_whole_round_of_tools_reaches_the_template():
    """Thoughts, calls with their input as an object, results with their call's name."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "any"}
    redacted = {"type": "redacted_thinking", "data": "opaque"}
    given = prompt(
        HELLO,
        assistant(thought, redacted, text("look"), CALLED),
        user({**RESULT, "content": [text("wind"), text("rain")]}, text("so?")),
        tools=[WEATHER],
    )
    assert given == (
        "[tools get_weather]\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n<think>hm</think>look(toolu_1 get_weather sea)<|im_end|>\n"
        "<|im_start|>tool toolu_1 get_weather\nwind\nrain<|im_end|>\n"
        "<|im_start|>user\nso?<|im_end|>\n" + OPENING
    )


@pytest.mark.parametrize(
    ("content", "is_error", "shown"),
    [
        ("wind", False, "wind"),
        ("wind", True, "Error: wind"),
        ([text("wind")], True, "Error: wind"),
        (None, True, "Error"),
        (None, False, ""),
    ],
)
def test_a_failed_tool_says_so_in_its_text(content, is_error, shown):
    """Templates have no other place for it."""
    result = {**RESULT, "is_error": is_error, "content": content}
    given = prompt(HELLO, assistant(CALLED), user(result), tools=[WEATHER])
    assert f"tool toolu_1 get_weather\n{shown}<|im_end|>" in given


def test_system_messages_may_stand_in_the_conversation():
    """Where the template takes them."""
    given = prompt(HELLO, {"role": "system", "content": "be kind"}, system="lead")
    assert given.index("lead") < given.index("hello") < given.index("be kind")


def test_a_last_message_of_the_assistant_is_continued():
    """The prompt ends with it, also when it came in blocks; an empty one asks for nothing."""
    assert prompt(HELLO, {"role": "assistant", "content": "It is ("}).endswith(OPENING + "It is (")
    assert prompt(HELLO, assistant(text("It"), text("is"))).endswith(OPENING + "It\nis")
    assert prompt(HELLO, {"role": "assistant", "content": ""}) == prompt(HELLO)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "assistant", "content": "hi"}], "messages[0].role"),
        ([{"role": "system", "content": "hi"}], "messages"),
        ([HELLO, {"role": "assistant", "content": "It is "}], "messages[1].content"),
        ([HELLO, assistant({"type": "thinking", "thinking": "hm"})], "messages[1].content[0]"),
        ([HELLO, assistant(CALLED)], "messages[1].content[0]"),
        ([HELLO, assistant(CALLED, text("It"))], "messages[1].content[0]"),
        ([HELLO, assistant(CALLED), user(text("so?"))], "messages[1].content[0]"),
        ([HELLO, assistant(CALLED), user(text("so?"), RESULT)], "messages[2].content[1]"),
        ([user(RESULT)], "messages[0].content[0].tool_use_id"),
        (
            [HELLO, assistant(CALLED), user({**RESULT, "tool_use_id": "x"})],
            "messages[2].content[0].tool_use_id",
        ),
        (
            [HELLO, assistant(CALLED), user(RESULT), assistant(text("ok")), user(RESULT)],
            "messages[4].content[0].tool_use_id",
        ),
    ],
)
def test_turns_follow_anthropics_rules(messages, param):
    """The user begins; calls are answered at once, before all else; a prefill ends in text."""
    assert refused(messages=messages, tools=[WEATHER]).param == param


def test_a_continued_message_that_the_template_hides_is_refused_by_our_name_for_it():
    """There is no continue_final_message in this dialect."""
    model = served_model(template="x")
    messages = [HELLO, {"role": "assistant", "content": "It"}]
    assert refused(model, messages=messages).param == "messages"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [WEATHER], "tool_choice": {"type": "any"}},
        {"tools": [{**WEATHER, "strict": True}]},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
    ],
)
def test_a_grammar_does_not_go_on_with_a_message(fields):
    """It decides on the answer from its first token."""
    messages = [HELLO, {"role": "assistant", "content": "It"}]
    assert refused(messages=messages, **fields).param == "messages"


def test_the_request_is_what_was_asked():
    """Sampling, stop sequences, salt and id."""
    job = message(
        THINKER, max_tokens=7, temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END"]
    )
    sampling = job.requests[0].sampling
    asked = (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k)
    assert asked == (7, 0.5, 0.9, 40)
    assert (job.id, job.requests[0].id, job.requests[0].cache_salt) == (
        "msg_abc123", "abc123", b"salt"
    )  # fmt: skip


def test_fields_of_other_dialects_do_nothing_and_are_listed():
    """A seed would change the answer of a chat; here nobody defined it."""
    job = message(seed=1, frequency_penalty=2, n=2)
    assert job.ignored == ("seed", "frequency_penalty", "n")
    assert (job.requests[0].sampling.seed, job.requests[0].n) == (CALL.seed, 1)


def test_unknown_names_are_listed_without_their_places():
    """However deep they stand, once."""
    job = message(
        messages=[user(text("a", x=1), text("b", x=2))],
        metadata={"user_id": "u", "team": "t"},
        system=[text("s", y=1)],
        cache_control={"type": "ephemeral", "scope": "global"},
    )
    assert sorted(job.ignored) == [
        "cache_control.scope", "messages.content.x", "metadata.team", "system.y"
    ]  # fmt: skip


def test_a_thinking_budget_reaches_the_engine():
    """With the markers between which it counts."""
    job = message(THINKER, thinking={"type": "enabled", "budget_tokens": 20})
    end = tuple(THINKER.tokenizer.encode("</think>", special=False))
    assert job.requests[0].sampling.thinking == ThinkingBudget(20, (), end)
    assert prompt_of(job).endswith("<think>")


def test_thinking_is_switched_where_the_template_has_a_switch():
    """Adaptive leaves it to the model."""
    off = prompt_of(message(THINKER, thinking={"type": "disabled"}))
    assert not off.endswith("<think>")
    adaptive = message(THINKER, thinking={"type": "adaptive"})
    assert prompt_of(adaptive) == prompt_of(message(THINKER))
    assert adaptive.requests[0].sampling.thinking is None


def test_a_model_that_always_thinks_can_be_given_a_budget():
    """`enabled` asks of it what it does anyway; `disabled` cannot be followed."""
    model = served_model(syntax=SYNTAX)
    job = message(model, thinking={"type": "enabled", "budget_tokens": 20})
    assert job.requests[0].sampling.thinking.tokens == 20
    assert refused(model, thinking={"type": "disabled"}).param == "thinking.type"


def test_a_model_that_does_not_think_is_not_asked_to():
    """`disabled` and `adaptive` hold for it as they are."""
    asked = {"type": "enabled", "budget_tokens": 20}
    assert refused(PLAIN, thinking=asked).param == "thinking.type"
    for kind in ("disabled", "adaptive"):
        assert message(PLAIN, thinking={"type": kind}).requests


def test_effort_is_told_to_templates_that_listen():
    """High is Anthropic's default, so it asks for nothing where nobody listens."""
    model = served_model(template=FULL + "{{ reasoning_effort }}", syntax=SYNTAX)
    assert prompt_of(message(model, output_config={"effort": "high"})).endswith("high")
    assert message(PLAIN, output_config={"effort": "high"}).requests
    assert refused(PLAIN, output_config={"effort": "low"}).param == "output_config.effort"


def test_forced_tools_are_forced_by_a_grammar():
    """`any` of all tools, `tool` of one; `auto` of none, unless a tool is strict."""
    other = {**WEATHER, "name": "other"}

    def grammar(tools=(WEATHER, other), **fields):
        return message(THINKER, tools=list(tools), **fields).requests[0].sampling.grammar

    assert grammar() is None
    assert grammar(tool_choice={"type": "none"}) is None
    any_of = grammar(tool_choice={"type": "any"})
    assert "get_weather" in any_of
    assert "other" in any_of
    named = grammar(tool_choice={"type": "tool", "name": "other"})
    assert "get_weather" not in named
    assert grammar(tools=[{**WEATHER, "strict": True}]) is not None


def test_a_model_without_a_syntax_of_calls_has_no_tools():
    """Unless they may not be called anyway."""
    assert refused(PLAIN, tools=[WEATHER]).code == "tools_not_supported"
    assert message(PLAIN, tools=[WEATHER], tool_choice={"type": "none"}).requests


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_a_schema_holds_the_answer(place):
    """In its newer and its older place; a keyword that cannot hold is named where it stands."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "schema": schema}
    fields = {"output_config": {"format": form}} if place == "output_config" else {place: form}
    assert '"a"' in message(THINKER, **fields).constraint.source
    schema["not"] = {}
    path = "output_config.format" if place == "output_config" else place
    assert refused(THINKER, **fields).param == f"{path}.schema.not"


def test_tokens_are_counted_as_they_would_be_charged():
    """System, tools and messages in the model's own template; also what would not fit."""
    fields = {"system": "be kind", "tools": [WEATHER]}
    job = message(THINKER, **fields)
    counted = count_tokens({**request(), **fields, "x": 1}, THINKER, CALL)
    assert json.loads(counted.body) == {"input_tokens": len(job.requests[0].prompt)}
    assert counted.ignored == ("max_tokens", "x")
    long = request(messages=[{"role": "user", "content": "hello " * 5000}])
    assert json.loads(count_tokens(long, THINKER, CALL).body)["input_tokens"] > 5000


def test_a_prompt_that_leaves_no_room_is_refused():
    """Nothing is cut off."""
    reply = refused(PLAIN, messages=[{"role": "user", "content": "hello " * 600}])
    assert (reply.code, reply.param) == ("context_length_exceeded", "messages")
