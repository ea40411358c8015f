"""Frames with more in them: padding that hides lengths, and the usage so far."""

import json

import pytest

from openai_compat.amended import PADDED_TO, Padding
from tests.support.fields import BOTH, PLAIN, frames, lower, raw_frames

PADDED = {"stream": True, "stream_options": {"include_obfuscation": True}}
ALL = {
    "stream": True,
    "stream_options": {
        "include_obfuscation": True,
        "continuous_usage_stats": True,
        "include_usage": True,
    },
}


@pytest.mark.parametrize("route", BOTH)
def test_padding_hides_how_long_a_token_is(route):
    """One letter or eleven: the same size on the wire."""
    sizes = [
        {len(event) for event in raw_frames(lower(route, PLAIN, **PADDED), text)[:-1]}
        for text in ("a", "assistant", "a quick user")
    ]
    assert all(size == sizes[0] for size in sizes)


def test_padding_differs_from_call_to_call_and_event_to_event():
    """Letters that could be foretold could be taken off again by their compression."""
    frame = b'data: {"a":1}\n\n'
    first, second = Padding(1), Padding(2)
    seen = [first.add(frame), first.add(frame), second.add(frame)]
    assert len(set(seen)) == 3
    assert Padding(-1).add(frame) != Padding(1).add(frame)


@pytest.mark.parametrize("length", range(PADDED_TO + 2))
def test_an_amended_event_is_json_of_a_fixed_size(length):
    """Whatever it was: one member more, at its end."""
    frame = b'data: {"a":"' + b"x" * length + b'"}\n\n'
    padded = Padding(7).add(frame)
    assert len(padded) % PADDED_TO == 0
    value = json.loads(padded.removeprefix(b"data: "))
    assert list(value) == ["a", "obfuscation"]
    assert value["a"] == "x" * length


@pytest.mark.parametrize("route", BOTH)
def test_all_of_it_together(route):
    """Usage in the place of its null, padding last; the last usage is not touched."""
    *chunks, last = frames(lower(route, PLAIN, **ALL))
    assert all(list(chunk)[-2:] == ["usage", "obfuscation"] for chunk in chunks)
    assert all(chunk["usage"]["prompt_tokens"] for chunk in chunks)
    assert last["choices"] == []
    assert "obfuscation" not in last
    assert last["usage"] == chunks[-1]["usage"]


@pytest.mark.parametrize("route", BOTH)
def test_without_being_asked_nothing_is_added(route):
    """The very same bytes."""
    plain = raw_frames(lower(route, PLAIN, stream=True))
    asked = {"include_obfuscation": False, "continuous_usage_stats": False}
    assert raw_frames(lower(route, PLAIN, stream=True, stream_options=asked)) == plain
