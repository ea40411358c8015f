"""Every event sequence of a response, by value."""

import json

import pytest

from engines.errors import EngineDied
from gateway.responses.kept_call import split
from openai_compat.errors import Overloaded, RequestRejected, reply_to
from tests.support.messages import THINKER, events_of, token_events
from tests.support.responses import (
    CALLED,
    ROUND,
    WEATHER,
    added_up,
    fed,
    folded,
    response,
    streamed,
    with_logprobs,
)

MESSAGE = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done",
           "content_part.done", "output_item.done"]  # fmt: skip
THOUGHT = ["output_item.added", "content_part.added", "reasoning_text.delta",
           "reasoning_text.done", "content_part.done", "output_item.done"]  # fmt: skip
CALL = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done"]  # fmt: skip


def kinds(body):
    """The types of the events, equal ones in a row once."""
    told = []
    for event in events_of(body):
        kind = event["type"].removeprefix("response.")
        if not told or told[-1] != kind:
            told.append(kind)
    return told


def last(body):
    return events_of(body)[-1]


def test_a_message_is_created_told_and_completed():
    """The sequence of the simplest answer, and what its events hold."""
    body = streamed(response(stream=True), token_events("hello world"))
    assert kinds(body) == ["created", "in_progress", *MESSAGE, "completed"]
    events = {event["type"].removeprefix("response."): event for event in events_of(body)}
    assert events["created"]["response"]["status"] == "in_progress"
    assert events["created"]["response"]["output"] == []
    assert events["created"]["response"]["usage"] is None
    assert events["output_item.added"]["item"] == {
        "id": "msg_abc123_0", "type": "message", "status": "in_progress", "role": "assistant",
        "content": [],
    }  # fmt: skip
    assert events["output_text.done"]["text"] == "hello world"
    final = added_up(body)
    assert final["status"] == "completed"
    assert final["usage"] == {
        "input_tokens": 14,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 18,
    }


def test_reasoning_text_and_calls_are_items_of_their_own():
    """One item at a time, in the order the model wrote them."""
    asked = response(THINKER, stream=True, tools=[WEATHER])
    body = streamed(asked, token_events(ROUND))
    assert kinds(body) == ["created", "in_progress", *THOUGHT, *MESSAGE, *CALL, "completed"]
    thought, message, call = added_up(body)["output"]
    assert (thought["type"], thought["summary"], thought["id"]) == ("reasoning", [], "rs_abc123_0")
    assert thought["content"][0]["text"].strip() == "the sea"
    assert message["content"][0]["text"].strip() == "hello"
    assert (call["type"], call["name"], call["id"]) == (
        "function_call",
        "get_weather",
        "fc_abc123_2",
    )
    assert json.loads(call["arguments"]) == {"q": "the sea"}
    assert call["call_id"].startswith("call_")


def test_several_calls_have_indices_of_their_own():
    """Dense output indices, one item each."""
    asked = response(THINKER, stream=True, tools=[WEATHER])
    final = added_up(streamed(asked, token_events(f"{CALLED}\n{CALLED}")))
    assert [item["type"] for item in final["output"]] == ["function_call"] * 2
    assert len({item["call_id"] for item in final["output"]}) == 2


def test_used_up_tokens_make_it_incomplete():
    """The response, its last item, and the reason; the text so far is there."""
    body = streamed(response(stream=True, max_output_tokens=2), token_events("hello", end="length"))
    assert kinds(body)[-1] == "incomplete"
    final = added_up(body)
    assert final["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in final["output"]] == ["incomplete"]


def test_a_call_that_breaks_off_is_incomplete():
    """Its arguments are no JSON, and nobody may take them for some."""
    asked = response(THINKER, stream=True, tools=[WEATHER])
    final = added_up(streamed(asked, token_events(CALLED[:60], end="length")))
    assert final["output"][-1]["type"] == "function_call"
    assert final["output"][-1]["status"] == "incomplete"


def test_an_answer_of_nothing_is_an_empty_message():
    """`output` is never empty in a completed response."""
    final = added_up(streamed(response(stream=True), token_events("")))
    assert final["status"] == "completed"
    assert [item["content"][0]["text"] for item in final["output"]] == [""]


def test_the_background_is_queued_until_the_engine_begins():
    """Created and queued at once, in_progress with the first tokens."""
    asked = response(stream=True, background=True)
    assert kinds(asked.renderer.begin()) == ["created", "queued"]
    assert json.loads(asked.renderer.body())["status"] == "queued"
    frames = asked.renderer.feed(0, token_events("hello")[0]).frames
    assert kinds(b"" + frames)[0] == "in_progress"
    assert json.loads(asked.renderer.body())["status"] == "in_progress"


def test_a_failure_is_told_to_readers_and_raised_by_sdks():
    """response.failed, then an error event that is flat as documented and nested as SDKs look."""
    asked = response(stream=True)
    fed(asked, token_events("hello", end=None))
    *_, failed, error = events_of(asked.renderer.fail(reply_to(EngineDied("the engine died"))))
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": "the engine died"}
    assert [item["status"] for item in failed["response"]["output"]] == ["incomplete"]
    assert error["type"] == "error"
    assert error["code"] == error["error"]["code"] == "engine_died"
    assert error["message"] == error["error"]["message"] == "the engine died"
    assert error["sequence_number"] == failed["sequence_number"] + 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Overloaded("full", retry_after_s=1), "rate_limit_exceeded"),
        (RequestRejected("no"), "invalid_prompt"),
        (RuntimeError("secret"), "server_error"),
    ],
)
def test_the_code_of_a_failed_response_is_one_of_openais(error, code):
    """A closed set; the message of our own faults says nothing."""
    asked = response(stream=True)
    failed = events_of(asked.renderer.fail(reply_to(error)))[0]["response"]["error"]
    assert failed["code"] == code
    assert "secret" not in failed["message"]


def test_a_cancelled_response_keeps_what_it_said():
    """Its item is incomplete; followers get an error, as no event says cancelled."""
    asked = response(stream=True, background=True)
    fed(asked, token_events("hello world", end=None))
    frames = asked.renderer.cancel()
    assert kinds(frames)[-1] == "error"
    assert last(frames)["error"]["code"] == "response_cancelled"
    body = json.loads(asked.renderer.body())
    assert body["status"] == "cancelled"
    assert body["output"][0]["content"][0]["text"] == "hello world"
    assert body["output"][0]["status"] == "incomplete"


def test_an_answer_that_is_not_streamed_has_no_frames():
    """And is the same object."""
    plain = folded(response(), token_events("hello world"))
    assert plain == added_up(streamed(response(stream=True), token_events("hello world")))


def test_logprobs_go_with_the_text_they_are_of():
    """Each delta's own, all of them in the part; without include there are none."""
    include = ["message.output_text.logprobs"]
    asked = response(stream=True, include=include, top_logprobs=2)
    body = streamed(asked, with_logprobs(token_events("né 😀")))
    final = added_up(body)
    logprobs = final["output"][0]["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in logprobs if "\ufffd" not in entry["token"])
    assert len(logprobs) == final["usage"]["output_tokens"] - 1  # the stop token is not shown
    assert logprobs[0]["top_logprobs"][1]["logprob"] == -9999.0
    assert (
        added_up(streamed(response(stream=True), token_events("né")))["output"][0]["content"][0][
            "logprobs"
        ]
        == []
    )


def test_logprobs_of_reasoning_are_not_those_of_the_text():
    """Whatever the grouping of tokens."""
    include = ["message.output_text.logprobs"]
    found = []
    for sizes in ((1,), (3,), (99,)):
        asked = response(THINKER, stream=True, include=include)
        events = with_logprobs(token_events("<think>the sea</think>hello", sizes=sizes))
        final = added_up(streamed(asked, events))
        found.append(final["output"][1]["content"][0]["logprobs"])
    assert found[0] == found[1] == found[2]
    assert [entry["token"] for entry in found[0]][-1] == "hello"


def test_logprobs_of_text_that_never_shows_are_still_told():
    """Half a character at the end: its tokens were generated."""
    include = ["message.output_text.logprobs"]
    events = with_logprobs(token_events("hello 😀", end="length"))
    events[-2].finish, events = events[-1].finish, events[:-1]
    final = added_up(streamed(response(stream=True, include=include), events))
    logprobs = final["output"][0]["content"][0]["logprobs"]
    assert len(logprobs) == final["usage"]["output_tokens"]


def test_obfuscation_pads_the_deltas_only_when_asked():
    """To a multiple of 64 bytes; the text is the same."""
    asked = response(stream=True, stream_options={"include_obfuscation": True})
    body = streamed(asked, token_events("hello world, né 😀"))
    deltas = [event for event in split(body) if b".delta\n" in event]
    assert len(deltas) > 3
    assert {len(delta) % 64 for delta in deltas} == {0}
    assert added_up(body)["output"][0]["content"][0]["text"] == "hello world, né 😀"
    plain = streamed(response(stream=True), token_events("hello world"))
    assert b"obfuscation" not in plain


def test_the_end_of_a_choice_that_has_not_finished_is_a_bug():
    """A clean end would read as success."""
    asked = response(stream=True)
    fed(asked, token_events("hello", end=None))
    with pytest.raises(RuntimeError):
        asked.renderer.finish()
