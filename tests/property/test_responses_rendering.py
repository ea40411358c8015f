"""A response does not depend on how the engine's events are cut, and its stream adds up to it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.responses.kept_call import split
from tests.support.messages import THINKER, events_of, token_events
from tests.support.responses import (
    WEATHER,
    added_up,
    folded,
    response,
    streamed,
    with_logprobs,
)

PARTS = st.sampled_from(
    [
        "hello", " world", "\n", "\n\n", "  ", "né 😀", "<think>", "</think>", "<tool_call>",
        "</tool_call>", '\n{"name": "get_weather", "arguments": {"q": "sea"}}\n',
        '{"name": "get_weather", "arguments": [1, ', '{"name": "get_weather"', '"}',
        '<tool_call>\n{"name": "get_weather", "arguments": {"q": "a"}}\n</tool_call>',
    ]
)  # fmt: skip
TEXTS = st.lists(PARTS, max_size=8).map("".join)
ENDS = st.sampled_from(["stop", "length"])
SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4)
FIELDS = st.fixed_dictionaries(
    {
        "parallel_tool_calls": st.booleans(),
        "include": st.sampled_from([[], ["message.output_text.logprobs"]]),
        "background": st.booleans(),
    }
)


def asked(fields, *, stream):
    return response(THINKER, stream=stream, tools=[WEATHER], **fields)


def events(text, end, sizes, fields):
    made = token_events(text, end=end, sizes=sizes)
    return with_logprobs(made) if fields["include"] else made


@settings(max_examples=300, deadline=None)
@given(TEXTS, ENDS, FIELDS, SIZES)
def test_any_delivery_gives_the_same_response(text, end, fields, sizes):
    """Items, statuses, log-probabilities and usage; streamed or not."""
    fields["background"] = False
    plain = folded(asked(fields, stream=False), events(text, end, (1,), fields))
    assert folded(asked(fields, stream=False), events(text, end, sizes, fields)) == plain
    body = streamed(asked(fields, stream=True), events(text, end, sizes, fields))
    assert added_up(body) == plain


@settings(max_examples=300, deadline=None)
@given(TEXTS, ENDS, FIELDS, SIZES)
def test_the_deltas_of_a_stream_add_up_to_its_items(text, end, fields, sizes):
    """Numbers are dense, indices too, one item is open at a time, and the end is the last event."""
    body = streamed(asked(fields, stream=True), events(text, end, sizes, fields))
    final = added_up(body)
    told = events_of(body)
    assert told[0]["type"] == "response.created"
    assert told[-1]["type"] == f"response.{final['status']}"
    open_item = None
    for event in told:
        if event["type"].endswith("output_item.added"):
            assert open_item is None
            open_item = event["output_index"]
        elif event["type"].endswith("output_item.done"):
            assert open_item == event["output_index"]
            open_item = None
    assert open_item is None


@settings(max_examples=100, deadline=None)
@given(TEXTS, ENDS, FIELDS, SIZES)
def test_the_log_has_one_entry_per_number(text, end, fields, sizes):
    """What is replayed from any place is the rest of the stream, byte by byte."""
    body = streamed(asked(fields, stream=True), events(text, end, sizes, fields))
    log = split(body)
    assert b"".join(log) == body
    assert [events_of(event)[0]["sequence_number"] for event in log] == list(range(len(log)))
