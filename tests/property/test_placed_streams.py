"""A stream that is told again from any place: what its reader then has is the whole, once."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.api import Finish, FinishReason, TokenEvent, TokenLogprobs
from openai_compat.chat.lower import lower_chat
from openai_compat.completions.lower import lower_completion
from openai_compat.cursor import Cursor, Part, Place, parse_cursor
from openai_compat.placed import PlacedRenderer
from tests.support.answers import function, hermes, writing
from tests.support.tokenizers import CALL, served_model

PLAIN = served_model(max_context=4096)
MODEL = writing(tools="hermes", reasoning="think", max_context=4096)
TOKENIZER = PLAIN.tokenizer
COMPLETION = {"model": "tiny", "stream": True}
USER = [{"role": "user", "content": "hello"}]
TOOLS = [function("f", a={"type": "integer"}), function("g")]
TEXTS = [
    "hello world, and more é🙂 of it END what follows the stop",
    f"<think>well, 1 < 2</think>I see{hermes('f', json.dumps({'a': 1}))} {hermes('g', '{}')}",
    "x",
]
JOBS = {
    "chat": lambda: lower_chat(_chat(), PLAIN, CALL),
    "usage": lambda: lower_chat(_chat(stream_options={"include_usage": True}), PLAIN, CALL),
    "choices": lambda: lower_chat(_chat(n=3, stop="END"), PLAIN, CALL),
    "logprobs": lambda: lower_chat(_chat(logprobs=True, top_logprobs=1), PLAIN, CALL),
    "tools": lambda: lower_chat(_chat(tools=TOOLS, n=2), MODEL, CALL),
    "completions": lambda: lower_completion(
        {**COMPLETION, "prompt": ["a", "b"], "n": 2, "logprobs": 1, "stop": "END"}, PLAIN, CALL
    ),
    "echo": lambda: lower_completion(
        {**COMPLETION, "prompt": "a", "echo": True}, PLAIN, CALL
    ),
}  # fmt: skip


def _chat(**fields):
    return {"model": "tiny", "messages": USER, "stream": True, **fields}


def events(data, job, logs):
    """The logs as events, cut and interleaved at will; each choice ends."""
    sampling = job.requests[0].sampling
    left = {key: list(log) for key, log in logs.items()}
    told = []
    while left:
        key = data.draw(st.sampled_from(sorted(left)))
        count = data.draw(st.integers(1, 9))
        tokens, left[key] = left[key][:count], left[key][count:]
        scores = [TokenLogprobs(-0.5, ((token, -0.5),)) for token in tokens]
        event = TokenEvent(key[1], tokens, 3, scores if sampling.logprobs is not None else None)
        if not left[key] and (not tokens or data.draw(st.booleans())):
            event.finish = Finish(FinishReason.LENGTH, len(logs[key]))
            del left[key]
        told.append((key[0], event))
    return told


def placed(job, after=None):
    choices = sum(request.n for request in job.requests)
    return PlacedRenderer(job.renderer, choices=choices, per_request=job.requests[0].n, after=after)


def rendered(renderer, told):
    """All frames of a stream, one by one."""
    frames, over = [renderer.begin()], set()
    for request, event in told:
        if (request, event.choice) not in over:
            one = renderer.feed(request, replace(event, tokens=list(event.tokens)))
            over |= {(request, choice) for choice in one.ended}
            frames.append(one.frames)
    frames.append(renderer.finish())
    return [frame + b"\n\n" for frame in b"".join(frames).split(b"\n\n")[:-1]]


def folded(frames):
    """What a client makes of frames: text, calls, scores and ends by choice, and the usage."""
    texts, scores, ends, usage, done = {}, {}, [], [], 0
    for frame in frames:
        (data,) = (line[6:] for line in frame.split(b"\n") if line.startswith(b"data: "))
        if data == b"[DONE]":
            done += 1
            continue
        chunk = json.loads(data)
        usage += [chunk["usage"]] if chunk.get("usage") else []
        for choice in chunk["choices"]:
            index = choice["index"]
            texts.setdefault(index, []).extend(_parts(choice))
            told = choice["logprobs"] or {}
            scores.setdefault(index, []).extend(told.get("content") or told.get("tokens") or ())
            ends += [(index, choice["finish_reason"])] if choice["finish_reason"] else []
    joined = {index: "".join(parts) for index, parts in texts.items()}
    return joined, scores, sorted(ends), usage, done


def _parts(choice):
    delta = choice.get("delta", {"content": choice.get("text", "")})
    yield f"<{delta['role']}>" if "role" in delta else ""
    yield f"[{delta['reasoning_content']}]" if delta.get("reasoning_content") else ""
    yield delta.get("content") or ""
    for call in delta.get("tool_calls", ()):
        yield f"#{call['index']}{call['function'].get('name', '')}" if "id" in call else ""
        yield call["function"]["arguments"]


def place_of(frame):
    marks = [line[4:].decode() for line in frame.split(b"\n") if line.startswith(b"id: ")]
    return marks[0] if marks else None


@pytest.mark.parametrize("name", JOBS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stream_goes_on_from_every_place(name, data):
    """Cut after any frame and told again with other events, it adds up to what it was."""
    job = JOBS[name]()
    keys = [(i, choice) for i, request in enumerate(job.requests) for choice in range(request.n)]
    logs = {key: TOKENIZER.encode(data.draw(st.sampled_from(TEXTS)), special=False) for key in keys}
    control = rendered(placed(job), events(data, job, logs))
    whole = _without_bounds(folded(control))
    assert place_of(control[-1]) is None
    assert all(place_of(frame) for frame in control[:-1])
    cut = data.draw(st.integers(0, len(control) - 2))
    mark = place_of(control[cut])
    assert str(parse_cursor(mark)) == mark
    again = JOBS[name]()
    rest = rendered(placed(again, parse_cursor(mark)), events(data, again, logs))
    assert _without_bounds(folded([*control[: cut + 1], *rest])) == whole


def _without_bounds(told):
    """Reasoning may come in other pieces: the marks between them are ours."""
    texts, *others = told
    return {index: text.replace("][", "") for index, text in texts.items()}, *others


PLACES = st.builds(Place, st.integers(0, 10**9 - 1), st.booleans())


@given(places=st.lists(PLACES, min_size=1, max_size=4), data=st.data())
def test_a_place_is_read_as_it_was_written(places, data):
    """Whatever it is within."""
    index = data.draw(st.integers(0, len(places) - 1))
    to = Place(data.draw(st.integers(places[index].tokens, 10**9 - 1)), data.draw(st.booleans()))
    frames = data.draw(st.integers(1, 9999))
    for cursor in (
        Cursor(tuple(places)),
        Cursor(tuple(places), Part(index, to, frames)),
        Cursor(tuple(places), ending=frames),
        Cursor(opening=frames),
    ):
        assert parse_cursor(str(cursor)) == cursor


@given(st.text(alphabet="0123456789f./:~+-x ", max_size=40))
def test_no_text_does_more_than_be_refused(text):
    """It is a place, or a ValueError."""
    try:
        cursor = parse_cursor(text)
    except ValueError:
        return
    assert parse_cursor(str(cursor)) == cursor
