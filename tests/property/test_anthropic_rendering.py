"""A message does not depend on how the engine's events are cut, and a stream adds up to it."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from openai_compat.anthropic.answer import tool_input
from tests.support.messages import (
    THINKER,
    WEATHER,
    added_up,
    events_of,
    folded,
    message,
    streamed,
    token_events,
)

PARTS = st.sampled_from(
    [
        "hello", " world", "\n", "\n\n", "  ", "END", "né 😀", "<think>", "</think>", "<tool_call>",
        "</tool_call>", '\n{"name": "get_weather", "arguments": {"q": "sea"}}\n',
        '{"name": "get_weather", "arguments": [1, ', '{"name": "get_weather"', '"}',
        '<tool_call>\n{"name": "get_weather", "arguments": {"q": "a"}}\n</tool_call>',
    ]
)  # fmt: skip
TEXTS = st.lists(PARTS, max_size=8).map("".join)
ENDS = st.sampled_from(["stop", "length"])
STOPS = st.lists(st.sampled_from(["END", "o w", "\n\n", "call>", "sea"]), max_size=2)
SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4)
FIELDS = st.fixed_dictionaries(
    {
        "tool_choice": st.sampled_from(
            [{"type": "auto"}, {"type": "auto", "disable_parallel_tool_use": True}]
        ),
        "thinking": st.sampled_from(
            [{"type": "adaptive"}, {"type": "adaptive", "display": "omitted"}]
        ),
    }
)


def asked(stops, fields, *, stream):
    return message(THINKER, stream=stream, tools=[WEATHER], stop_sequences=stops, **fields)


@settings(max_examples=300, deadline=None)
@given(TEXTS, ENDS, STOPS, FIELDS, SIZES)
def test_any_delivery_folds_to_the_same_message(text, end, stops, fields, sizes):
    """Blocks, reasons and usage."""
    plain = folded(asked(stops, fields, stream=False), token_events(text, end=end))
    cut = token_events(text, end=end, sizes=sizes)
    assert folded(asked(stops, fields, stream=False), cut) == plain


@settings(max_examples=300, deadline=None)
@given(TEXTS, ENDS, STOPS, FIELDS, SIZES)
def test_a_stream_adds_up_to_the_folded_message(text, end, stops, fields, sizes):
    """Text and thoughts character by character; `input` is what the streamed arguments spell."""
    whole = folded(asked(stops, fields, stream=False), token_events(text, end=end, sizes=(99,)))
    body = streamed(asked(stops, fields, stream=True), token_events(text, end=end, sizes=sizes))
    streamed_message, arguments = added_up(body)
    for index, block in enumerate(streamed_message["content"]):
        if block["type"] == "tool_use":
            block["input"] = tool_input(arguments.get(index, ""))
    assert streamed_message == whole


@settings(max_examples=200, deadline=None)
@given(TEXTS, ENDS, SIZES)
def test_blocks_begin_and_end_in_order(text, end, sizes):
    """One at a time, indices dense from 0, deltas only into the open one, one start, one end."""
    body = streamed(asked([], {}, stream=True), token_events(text, end=end, sizes=sizes))
    first, *events, delta, last = events_of(body)
    assert [first["type"], delta["type"], last["type"]] == [
        "message_start", "message_delta", "message_stop"
    ]  # fmt: skip
    open_block, begun = None, 0
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert (open_block, event["index"]) == (None, begun)
                open_block, begun = event["index"], begun + 1
            case "content_block_delta":
                assert event["index"] == open_block
            case "content_block_stop":
                assert event["index"] == open_block
                open_block = None
            case kind:
                assert kind == "ping"
    assert open_block is None


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30) | st.recursive(st.none() | st.integers() | st.text(max_size=5),
       lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner,
       max_size=3)).map(json.dumps))  # fmt: skip
def test_input_is_always_an_object(text):
    """The arguments as they are where they spell one, else whole under one key."""
    given_input = tool_input(text)
    assert isinstance(given_input, dict)
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        value = None
    if isinstance(value, dict):
        assert given_input == value
    elif list(given_input) != ["INVALID_JSON"]:
        raise AssertionError(given_input)
