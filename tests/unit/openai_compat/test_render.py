"""The renderer's contract with the process around it."""

import json
import math

import pytest

from engines.api import Finish, FinishReason, TokenEvent, TokenLogprobs
from engines.errors import EngineDied
from openai_compat.errors import reply_to
from openai_compat.job import Rendered, Usage
from tests.support.tokenizers import EOS, served_model

TOKENIZER = served_model().tokenizer
EOS_ID = TOKENIZER.token_id(EOS)
LENGTH = Finish(FinishReason.LENGTH, 0)


def ids(text):
    return TOKENIZER.encode(text, special=False)


def content(frames):
    """The joined content of a number of frames."""
    lines = [line for line in frames.split(b"\n\n") if line]
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in lines]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_several_tokens_at_once_are_one_frame(chat):
    """A slow reader gets fewer, larger frames."""
    renderer = chat(stream=True).renderer
    renderer.begin()
    rendered = renderer.feed(0, TokenEvent(0, ids("hello world, hello"), 0))
    assert rendered.frames.count(b"data: ") == 1
    assert content(rendered.frames) == "hello world, hello"


def test_an_event_without_visible_text_writes_nothing(chat):
    """No empty deltas."""
    renderer = chat(stream=True, stop="hello").renderer
    renderer.begin()
    assert renderer.feed(0, TokenEvent(0, ids("h"), 0)).frames == b""


def test_a_matched_stop_string_ends_the_choice_here_and_in_the_engine(chat):
    """Reported once; what the engine still sends is ignored and not charged."""
    renderer = chat(stream=True, stop="END", n=2).renderer
    renderer.begin()
    rendered = renderer.feed(0, TokenEvent(1, ids("hello END"), 0))
    assert rendered.ended == (1,)
    charged = renderer.usage.completion_tokens
    assert renderer.feed(0, TokenEvent(1, ids("more"), 0)) == Rendered(b"")
    assert renderer.feed(0, TokenEvent(1, [], 0, finish=LENGTH)) == Rendered(b"")
    assert renderer.usage.completion_tokens == charged


def test_a_match_in_the_last_event_needs_no_end_in_the_engine(chat):
    """The engine's choice is over anyway."""
    renderer = chat(stream=True, stop="END").renderer
    renderer.begin()
    rendered = renderer.feed(0, TokenEvent(0, ids("END more"), 0, finish=LENGTH))
    assert rendered.ended == ()
    assert rendered.finish == "stop"
    assert b'"finish_reason":"stop"' in rendered.frames


def test_tokens_up_to_the_match_are_charged(chat):
    """Tokens of the same event after the match are not."""
    tokens = [*ids("hello"), *ids("END"), *ids("world")]
    renderer = chat(stop="END").renderer
    renderer.feed(0, TokenEvent(0, tokens, 0, finish=LENGTH))
    assert renderer.usage.completion_tokens == len(tokens) - len(ids("world"))


def test_a_stop_token_is_charged_and_never_shown(chat):
    """Also one that spells text, which a client may choose by stop_token_ids."""
    world = ids("world")
    renderer = chat(stop_token_ids=world).renderer
    finish = Finish(FinishReason.STOP, 2, stop_token=world[0])
    renderer.feed(0, TokenEvent(0, [*ids("hello"), *world], 0, finish=finish))
    choice = json.loads(renderer.fold())["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hello", "stop")
    assert renderer.usage.completion_tokens == 2


def test_usage_is_exact_at_every_moment(chat):
    """Prompt once whatever n is; cached once per prompt; tokens as they come."""
    job = chat(n=2, stream=True)
    prompt = len(job.requests[0].prompt)
    job.renderer.begin()
    assert job.renderer.usage == Usage(prompt, 0, 0)
    job.renderer.feed(0, TokenEvent(0, ids("hello"), 8))
    job.renderer.feed(0, TokenEvent(1, ids("hello world"), 8))
    assert job.renderer.usage == Usage(prompt, 1 + len(ids("hello world")), 8)


def test_choices_of_several_prompts_are_numbered_through(complete):
    """Index = prompt * n + choice."""
    renderer = complete(prompt=["hello", " world"], n=2).renderer
    for request in (0, 1):
        for choice in (0, 1):
            tokens = ids(f" {request + 1}" * (choice + 1))
            renderer.feed(request, TokenEvent(choice, tokens, 0, finish=LENGTH))
    texts = [choice["text"] for choice in json.loads(renderer.fold())["choices"]]
    assert texts == [" 1", " 1 1", " 2", " 2 2"]


@pytest.mark.parametrize("stream", [True, False])
def test_no_clean_end_before_every_choice_has_finished(chat, stream):
    """Clients take a clean end for success."""
    renderer = chat(n=2, stream=stream).renderer
    renderer.begin()
    renderer.feed(0, TokenEvent(0, [EOS_ID], 0, finish=Finish(FinishReason.STOP, 1, EOS_ID)))
    with pytest.raises(RuntimeError, match="1 choices"):
        _ = renderer.finish() if stream else renderer.fold()


def test_logprobs_spell_every_token_exactly(chat):
    """Text, bytes, quotes, half characters and minus infinity, the same for a token seen again."""
    half, quote, hello = ids("é")[0], ids('"')[0], ids("hello")[0]
    top = ((quote, -0.25), (half, -math.inf), (hello, -1e-7))
    told = [TokenLogprobs(-0.5, top), TokenLogprobs(-math.inf, ())]
    renderer = chat(logprobs=True, top_logprobs=3).renderer
    renderer.feed(0, TokenEvent(0, [hello, hello], 0, told, LENGTH))
    first, second = json.loads(renderer.fold())["choices"][0]["logprobs"]["content"]
    text, raw = TOKENIZER.token_text(half), list(TOKENIZER.token_bytes(half))
    said = {"token": "hello", "logprob": -0.5, "bytes": list(b"hello")}
    assert first == {
        **said,
        "top_logprobs": [
            {"token": '"', "logprob": -0.25, "bytes": [34]},
            {"token": text, "logprob": -9999.0, "bytes": raw},
            {**said, "logprob": -1e-7},
        ],
    }
    assert second == {**said, "logprob": -9999.0, "top_logprobs": []}


def test_a_call_that_does_not_stream_writes_no_frames(chat):
    """Until it is folded."""
    renderer = chat().renderer
    assert renderer.begin() == b""
    assert renderer.feed(0, TokenEvent(0, ids("hello"), 0)).frames == b""


def test_a_failure_is_the_nested_error_event(chat):
    """One event, no [DONE]."""
    renderer = chat(stream=True).renderer
    renderer.begin()
    frame = renderer.fail(reply_to(ValueError()))
    assert frame.startswith(b'data: {"error":{"message":')
    assert frame.endswith(b"\n\n")


def test_retrying_is_offered_before_an_answer_and_never_in_a_stream(chat):
    """An engine's death is worth another try while nothing was seen; the event has no such word."""
    death = reply_to(EngineDied("gone"))
    assert (death.status, death.retryable) == (500, True)
    assert not reply_to(ValueError()).retryable
    renderer = chat(stream=True).renderer
    renderer.begin()
    event = json.loads(renderer.fail(death).removeprefix(b"data: "))
    assert sorted(event["error"]) == ["code", "message", "param", "type"]


@pytest.mark.parametrize(
    "text", ['"', "\\", "\n", "\r\n", "\u2028", "\x00", "data: [DONE]\n\n", "é"]
)
def test_any_text_stays_inside_of_its_frame(chat, text):
    """Line breaks and quotes are escaped: a frame is one line."""
    renderer = chat(stream=True).renderer
    renderer.begin()
    frames = renderer.feed(0, TokenEvent(0, ids(text), 0)).frames
    assert frames.count(b"\n") == 2
    assert b"\r" not in frames
    assert content(frames) == text
