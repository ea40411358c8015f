"""Messages as they are written: events by value, blocks, reasons, and how a stream fails."""

import json

import pytest

from engines.api import Finish, FinishReason, TokenEvent
from engines.errors import EngineDied
from openai_compat.anthropic.answer import INVALID_JSON
from openai_compat.errors import reply_to
from tests.support.messages import (
    THINKER,
    WEATHER,
    events_of,
    folded,
    ids,
    message,
    streamed,
    token_events,
)

CALL_TEXT = '<tool_call>\n{"name": "get_weather", "arguments": {"q": "sea"}}\n</tool_call>'


def thinker(**fields):
    return message(THINKER, tools=[WEATHER], **fields)


def test_a_stream_is_start_blocks_delta_stop():
    """In Anthropic's order, the ping after the first block has begun, usage in both places."""
    job = message(stream=True)
    start, begin, ping, *deltas, stop, delta, end = events_of(
        streamed(job, token_events("hello world"))
    )
    prompt = len(job.requests[0].prompt)
    counts = {
        "input_tokens": prompt - 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 3,
    }
    thinking = {"output_tokens_details": {"thinking_tokens": 0}}
    assert start == {
        "type": "message_start",
        "message": {
            "id": "msg_abc123",
            "type": "message",
            "role": "assistant",
            "model": "tiny",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**counts, "output_tokens": 0, **thinking, "service_tier": "standard"},
        },
    }
    block = {"type": "text", "text": ""}
    assert begin == {"type": "content_block_start", "index": 0, "content_block": block}
    assert ping == {"type": "ping"}
    assert [each["delta"] for each in deltas] == [
        {"type": "text_delta", "text": text} for text in ("hello", " ", "world")
    ]
    assert stop == {"type": "content_block_stop", "index": 0}
    assert delta == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {**counts, "output_tokens": 4, **thinking},
    }
    assert end == {"type": "message_stop"}


def test_thoughts_text_and_calls_are_blocks_of_their_own():
    """Each begins, goes on and ends before the next; a thought is signed; arguments grow."""
    body = streamed(
        thinker(stream=True),
        token_events(f"<think>\nhm\n</think>\n\nhello\n\n{CALL_TEXT}\n{CALL_TEXT}"),
    )
    told = [
        (event["type"], event.get("index"), event.get("content_block", {}).get("type"))
        for event in events_of(body)
        if event["type"] in ("content_block_start", "content_block_stop")
    ]
    kinds = ["thinking", "text", "tool_use", "tool_use"]
    assert told == [
        each
        for index, kind in enumerate(kinds)
        for each in (("content_block_start", index, kind), ("content_block_stop", index, None))
    ]
    deltas = [event for event in events_of(body) if event["type"] == "content_block_delta"]
    signed = [at for at, event in enumerate(deltas) if event["delta"]["type"] == "signature_delta"]
    assert [deltas[at + 1]["index"] for at in signed] == [1]
    arguments = [e["delta"]["partial_json"] for e in deltas if e["index"] == 2]
    assert json.loads("".join(arguments)) == {"q": "sea"}
    assert len(arguments) > 1


def test_the_folded_message_has_parsed_input():
    """And ids that look like Anthropic's, each its own."""
    answer = folded(thinker(), token_events(f"{CALL_TEXT}\n{CALL_TEXT}"))
    assert answer["stop_reason"] == "tool_use"
    first, second = answer["content"]
    assert first["input"] == second["input"] == {"q": "sea"}
    assert first["name"] == "get_weather"
    assert first["id"].startswith("toolu_")
    assert first["id"] != second["id"]


@pytest.mark.parametrize(
    ("text", "end", "stops", "reason", "sequence"),
    [
        ("hello", "stop", [], "end_turn", None),
        ("hello", "length", [], "max_tokens", None),
        ("hello END world", "length", ["END"], "stop_sequence", "END"),
        ("hello world END", "length", ["END", "wor"], "stop_sequence", "wor"),
        (CALL_TEXT, "stop", [], "tool_use", None),
        (CALL_TEXT, "length", [], "max_tokens", None),
        (CALL_TEXT + "END", "length", ["END"], "tool_use", None),
        (CALL_TEXT, "length", ["sea"], "stop_sequence", "sea"),
    ],
)
def test_stop_reasons(text, end, stops, reason, sequence):
    """A complete call is to be run, whatever came after it; a broken one is not."""
    job = thinker(stop_sequences=stops)
    answer = folded(job, token_events(text, end=end))
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)


def test_one_call_ends_the_message_where_only_one_may_be():
    """`disable_parallel_tool_use`, and a tool that the client named."""
    for choice in (
        {"type": "auto", "disable_parallel_tool_use": True},
        {"type": "any", "disable_parallel_tool_use": True},
        {"type": "tool", "name": "get_weather"},
    ):
        answer = folded(thinker(tool_choice=choice), token_events(f"{CALL_TEXT}\n{CALL_TEXT}"))
        assert answer["stop_reason"] == "tool_use"
        assert len(answer["content"]) == 1


def test_broken_arguments_are_handed_over_whole():
    """Half of an object would look like what the model meant."""
    text = '<tool_call>\n{"name": "get_weather", "arguments": {"q": "se'
    answer = folded(thinker(), token_events(text, end="length"))
    assert answer["content"][0]["input"] == {INVALID_JSON: '{"q": "se'}
    assert answer["stop_reason"] == "max_tokens"
    bare = text.removesuffix('{"q": "se') + '"sea"}\n</tool_call>'
    assert folded(thinker(), token_events(bare))["content"][0]["input"] == {INVALID_JSON: '"sea"'}


def test_a_call_without_arguments_has_empty_input():
    """As one has whose arguments never began."""
    text = '<tool_call>\n{"name": "get_weather"}\n</tool_call>'
    assert folded(thinker(), token_events(text))["content"][0]["input"] == {}
    broken = text.removesuffix("}\n</tool_call>")
    answer = folded(thinker(), token_events(broken, end="length"))
    assert answer["content"][0]["input"] == {}


def test_thoughts_can_be_omitted_and_are_still_signed():
    """`display: omitted`: the block and its signature stand, its text does not."""
    text = "<think>\nhello world\n</think>\nhello"
    fields = {"thinking": {"type": "adaptive", "display": "omitted"}}
    shown = folded(thinker(), token_events(text))["content"]
    hidden = folded(thinker(**fields), token_events(text))["content"]
    assert shown[0]["thinking"] == "hello world"
    assert hidden[0] == {**shown[0], "thinking": ""}
    assert hidden[1] == shown[1]
    body = streamed(thinker(stream=True, **fields), token_events(text))
    assert "thinking_delta" not in body.decode()


def test_a_signature_follows_from_the_thought_alone():
    """The same for the same text, another for another."""
    first, again, other = (
        folded(thinker(), token_events(f"<think>{thought}</think>hello"))["content"][0]["signature"]
        for thought in ("hello", "hello", "world")
    )
    assert first == again != other


def test_white_space_beside_other_blocks_is_no_block():
    """Anthropic refuses such blocks when they come back; an answer of nothing else keeps it."""
    answer = folded(thinker(), token_events(f"<think>\n\n</think>\n\n{CALL_TEXT}\n \n"))
    assert [block["type"] for block in answer["content"]] == ["tool_use"]
    assert folded(message(), token_events("\n\n"))["content"] == [{"type": "text", "text": "\n\n"}]
    assert folded(message(), token_events("  hello"))["content"][0]["text"] == "  hello"


def test_a_message_that_ends_at_once_has_no_content():
    """No block, no ping; still a start, a reason and a stop."""
    assert folded(message(), token_events(""))["content"] == []
    kinds = [e["type"] for e in events_of(streamed(message(stream=True), token_events("")))]
    assert kinds == ["message_start", "message_delta", "message_stop"]


def test_a_full_context_is_told_apart_from_max_tokens():
    """What was asked did not fit, and the answer ran to the end of the context."""
    job = message(max_tokens=1_000_000)
    assert job.requests[0].sampling.max_tokens == 512 - len(job.requests[0].prompt)
    answer = folded(job, token_events("hello", end="length"))
    assert answer["stop_reason"] == "model_context_window_exceeded"
    room = job.requests[0].sampling.max_tokens
    exact = folded(message(max_tokens=room), token_events("hello", end="length"))
    assert exact["stop_reason"] == "max_tokens"


def test_thinking_tokens_are_counted():
    """Within output_tokens."""
    usage = folded(thinker(), token_events("<think>hello world</think>hello"))["usage"]
    assert 2 <= usage["output_tokens_details"]["thinking_tokens"] < usage["output_tokens"]


def test_a_failure_is_an_error_event_and_no_end():
    """Of Anthropic's shape; before or after the message has begun."""
    for begun in (0, 2):
        renderer = message(stream=True).renderer
        frames = renderer.begin()
        for event in token_events("hello world hello")[:begun]:
            frames += renderer.feed(0, event).frames
        frames += renderer.fail(reply_to(EngineDied("the engine died")))
        *_, last = events = events_of(frames)
        assert last == {
            "type": "error",
            "error": {
                "type": "api_error",
                "message": "the engine died",
                "details": {"error_code": "engine_died"},
            },
        }
        assert all(event["type"] != "message_stop" for event in events)


def test_no_clean_end_before_the_message_has_finished():
    """Clients take a clean end for success."""
    for stream in (True, False):
        renderer = message(stream=stream).renderer
        renderer.feed(0, TokenEvent(0, ids("hello"), 0))
        with pytest.raises(RuntimeError, match="not finished"):
            _ = renderer.finish() if stream else renderer.fold()


def test_what_comes_after_a_stop_sequence_is_ignored_and_not_charged():
    """The engine is told to end the choice."""
    renderer = message(stream=True, stop_sequences=["END"]).renderer
    rendered = renderer.feed(0, TokenEvent(0, ids("hello END"), 0))
    assert rendered.ended == (0,)
    charged = renderer.usage.completion_tokens
    late = TokenEvent(0, ids("more"), 0, finish=Finish(FinishReason.LENGTH, 9))
    assert renderer.feed(0, late).frames == b""
    assert renderer.usage.completion_tokens == charged


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\r\n", "\u2028", "\x00", "data: x\n\n", "é"])
def test_any_text_stays_inside_of_its_frame(text):
    """Line breaks and quotes are escaped: an event is two lines."""
    body = streamed(message(stream=True), token_events(f"hello{text}hello", sizes=(99,)))
    texts = [event["delta"]["text"] for event in events_of(body) if "delta" in event
             and event["type"] == "content_block_delta"]  # fmt: skip
    assert "".join(texts) == f"hello{text}hello"
