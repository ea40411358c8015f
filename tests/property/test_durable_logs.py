"""What is written down of a call gives the same call again, however it was cut and taken up."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.api import (
    Finish,
    FinishReason,
    GenerationRequest,
    RequestId,
    Sampling,
    TokenEvent,
    TokenLogprobs,
)
from gateway.durable.token_log import TokenLog, read_log
from tests.support.messages import THINKER, token_events
from tests.support.responses import WEATHER, response, with_logprobs

REQUESTS = (
    GenerationRequest(RequestId("a-0"), (1, 2), Sampling(max_tokens=99, logprobs=1), n=2),
    GenerationRequest(RequestId("a-1"), (3,), Sampling(max_tokens=99, logprobs=1)),
)
PLACES = [(0, 0), (0, 1), (1, 0)]
TOKENS = st.lists(st.integers(0, 500), max_size=12)
CALLS = st.tuples(*(st.tuples(TOKENS, st.booleans()) for _ in PLACES))
PARTS = st.sampled_from(
    [
        "hello", " world", "\n", "  ", "né 😀", "<think>", "</think>", "<tool_call>",
        "</tool_call>", '\n{"name": "get_weather", "arguments": {"q": "sea"}}\n',
        '{"name": "get_weather", "arguments": [1, ', '"}',
        '<tool_call>\n{"name": "get_weather", "arguments": {"q": "a"}}\n</tool_call>',
    ]
)  # fmt: skip
TEXTS = st.lists(PARTS, max_size=8).map("".join)
SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=4)
FIELDS = st.fixed_dictionaries(
    {
        "parallel_tool_calls": st.booleans(),
        "include": st.sampled_from([[], ["message.output_text.logprobs"]]),
    }
)


def score(token):
    return TokenLogprobs(-0.5, ((token, -0.5), (token + 1, -1.0)))


def event(choice, tokens, finish=None):
    return TokenEvent(choice, list(tokens), 3, [score(token) for token in tokens], finish)


def ends(tokens, *, ended):
    return Finish(FinishReason.STOP, len(tokens), None) if ended else None


@st.composite
def tellings(draw, call):
    """The events of a call, cut anywhere; those of several choices in any order."""
    queues = []
    for (request, choice), (tokens, ended) in zip(PLACES, call, strict=True):
        cuts = sorted(draw(st.sets(st.integers(1, max(1, len(tokens) - 1)), max_size=4)))
        bounds = [0, *(cut for cut in cuts if cut < len(tokens)), len(tokens)]
        pieces = [
            (request, event(choice, tokens[begin:end]))
            for begin, end in pairwise(bounds)
            if end > begin
        ]
        finish = ends(tokens, ended=ended)
        if finish is not None and pieces and draw(st.booleans()):
            pieces[-1][1].finish = finish
        elif finish is not None:
            pieces.append((request, event(choice, [], finish)))
        queues.append(pieces)
    order = draw(st.permutations([place for place, queue in enumerate(queues) for _ in queue]))
    return [queues[place].pop(0) for place in order]


def whole(chunks):
    """What a log says, by request and choice."""
    return {
        (request, told.choice): (told.tokens, told.logprobs, told.finish)
        for request, events in enumerate(read_log(chunks, REQUESTS))
        for told in events
    }


def said(call):
    return {
        place: (tokens, [score(token) for token in tokens], ends(tokens, ended=ended))
        for place, (tokens, ended) in zip(PLACES, call, strict=True)
        if tokens or ended
    }


@settings(max_examples=300, deadline=None)
@given(st.data(), CALLS)
def test_any_cutting_gives_the_same_log(data, call):
    """Each token once and in its place, wherever chunks were cut; reading is the inverse."""
    log = TokenLog()
    for request, told in data.draw(tellings(call)):
        log.add(request, told)
        if data.draw(st.booleans()):
            log.cut()
    log.cut()
    assert whole(log.chunks) == said(call)
    assert log.length == sum(len(tokens) for tokens, _ in call)


@settings(max_examples=300, deadline=None)
@given(st.data(), CALLS, st.integers(1, 4))
def test_any_taking_up_adds_only_what_is_new(data, call, owners):
    """Each owner has the chunks up to some place, and is told the call again in its own cuts."""
    chunks = []
    for _ in range(owners):
        log, before = TokenLog(chunks), list(chunks)
        known = {place: log.known(*place) for place in PLACES}
        assert known == {place: len(whole(chunks).get(place, ([],))[0]) for place in PLACES}
        events = data.draw(tellings(call))
        for request, told in events[: data.draw(st.integers(0, len(events)))]:
            log.add(request, told)
            if data.draw(st.booleans()):
                log.cut()
        log.cut()
        assert log.chunks[: len(before)] == before
        chunks = log.chunks[: data.draw(st.integers(len(before), len(log.chunks)))]
    log = TokenLog(chunks)
    for request, told in data.draw(tellings(call)):
        log.add(request, told)
    log.cut()
    assert whole(log.chunks) == said(call)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.sampled_from(["stop", "length"]), FIELDS, SIZES, st.data())
def test_a_response_is_told_again_from_its_log(text, end, fields, sizes, data):
    """Byte by byte, numbers included: live in any cuts, and from a log in any chunks."""
    fields = {"background": True, "stream": True, "tools": [WEATHER], **fields}

    def events(cuts):
        made = token_events(text, end=end, sizes=cuts)
        if end == "length" and data.draw(st.booleans()):  # the end may come by itself
            made.append(TokenEvent(0, [], 3, finish=made[-1].finish))
            made[-2].finish = None
        return with_logprobs(made) if fields["include"] else made

    told = frames(fields, events((1,)))
    assert frames(fields, events(sizes)) == told
    log = TokenLog()
    for each in events(data.draw(SIZES)):
        log.add(0, each)
        if data.draw(st.booleans()):
            log.cut()
    log.cut()
    asked = response(THINKER, **fields)
    sampling = replace(asked.job.requests[0].sampling, logprobs=2 if fields["include"] else None)
    request = replace(asked.job.requests[0], sampling=sampling)
    assert frames(fields, read_log(log.chunks, [request])[0]) == told


def frames(fields, events):
    """The stream of a response; what comes behind its end is not told."""
    renderer = response(THINKER, **fields).renderer
    made = [renderer.begin(), *(renderer.feed(0, each).frames for each in events)]
    return b"".join(made) + renderer.finish()
