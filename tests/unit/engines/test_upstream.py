"""What is said to an upstream, and how what it says is read."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.api import (
    Capability,
    Finish,
    FinishReason,
    GenerationRequest,
    RequestId,
    Sampling,
    ThinkingBudget,
    TokenLogprobs,
)
from engines.errors import (
    EngineDied,
    EngineUnavailable,
    InvalidRequest,
    RequestFailed,
    Unsupported,
)
from engines.upstream.config import Kind
from engines.upstream.fields import body, check
from engines.upstream.reading import Cursor, Nonsense
from engines.upstream.replies import refusal, told
from engines.upstream.sse import EventReader, TooLong
from tests.support.engines import ask
from tests.support.scripted_upstream import chunk, event, upstream_config

URL = "http://h/v1"
VLLM = upstream_config(URL)
PLAIN = upstream_config(URL, kind=Kind.PLAIN)
PENSTOCK = upstream_config(URL, kind=Kind.PENSTOCK)

# -- events


def events(*pieces, most=1000):
    reader = EventReader(event_bytes=most, stream_bytes=100_000)
    return [data for piece in pieces for data in reader.feed(piece)]


def test_data_lines_are_joined_and_all_else_is_left_out():
    """Comments, other fields, empty events, and what has not ended."""
    stream = (
        b"\xef\xbb\xbfdata: a\n\n: comment\n\nevent: x\ndata:b\ndata:  c\nid: 3\n\n"
        b"data\n\ndatas: no\n\ndata: unfinished\n"
    )
    assert events(stream) == [b"a", b"b\n c", b""]


@given(
    st.lists(st.sampled_from([b"data: a:b", b"data:", b": c", b"event: e", b"", b""]), max_size=12),
    st.sampled_from([b"\n", b"\r", b"\r\n"]),
    st.lists(st.integers(0, 120), max_size=6),
)
def test_events_do_not_depend_on_where_the_stream_was_cut(lines, end, cuts):
    """With each of the three line ends, a cut between CR and LF too."""
    stream = end.join([*lines, b"", b""])
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    single = [stream[at : at + 1] for at in range(len(stream))]
    assert events(stream) == events(*pieces) == events(*single)
    assert events(stream) == events(stream.replace(end, b"\n"))


@pytest.mark.parametrize("piece", [b"data: x", b"data: x\n", b": x", b"x"])
def test_what_never_ends_is_cut_off(piece):
    """One line without an end, one event of many lines; comments alone meet the other bound."""
    with pytest.raises(TooLong, match="1000 bytes"):
        events(*[piece * 3] * 400)


def test_a_stream_has_a_length():
    """Comments for ever are too long in the end."""
    reader = EventReader(event_bytes=100, stream_bytes=1000)
    assert reader.feed(b": keep\n" * 100) == []
    with pytest.raises(TooLong, match="stream"):
        reader.feed(b": keep\n" * 100)


# -- what is said


def request(*emitted, n=1, priority=0, salt=b"", **sampling):
    asked = ask("a", [1, 2, 3], n=n, **sampling)
    return replace(asked, emitted=emitted, priority=priority, cache_salt=salt)


def said(config=VLLM, choice=0, **asked):
    emitted = asked.pop("emitted", ())
    return body(request(*emitted, **asked), choice, config, "m")


def test_every_field_has_its_name():
    """All of them, as vLLM documents them."""
    assert said(
        temperature=0.7, top_k=5, top_p=0.9, min_p=0.1, seed=-3, max_tokens=9, min_tokens=2,
        presence=0.5, frequency=0.25, repetition=1.5, bias={4: 2.0, 100: 1.0},
        stop_tokens=frozenset({9, 7, 100}), allowed=frozenset({9, 8, 7, -1}), logprobs=2, salt=b"s",
    ) == {
        "model": "m", "prompt": [1, 2, 3], "max_tokens": 9, "stream": True,
        "stream_options": {"include_usage": True}, "return_token_ids": True,
        "temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "seed": -3, "min_tokens": 2,
        "presence_penalty": 0.5, "frequency_penalty": 0.25, "repetition_penalty": 1.5,
        "logit_bias": {"4": 2.0}, "stop_token_ids": [7, 9], "allowed_token_ids": [7, 8, 9],
        "ignore_eos": True, "include_stop_str_in_output": True, "skip_special_tokens": False,
        "logprobs": 2, "return_tokens_as_token_ids": True, "cache_salt": "73",
    }  # fmt: skip


def test_openai_hears_only_what_it_documents():
    """And that token ids are wanted."""
    assert said(PLAIN, stop_tokens=frozenset({2})) == {
        "model": "m", "prompt": [1, 2, 3], "max_tokens": 16, "stream": True,
        "stream_options": {"include_usage": True}, "return_token_ids": True,
        "temperature": 0.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    }  # fmt: skip


def test_priorities_go_where_they_are_taken():
    """VLLM refuses them unless it was told to schedule by them; ours has bounds."""
    assert "priority" not in said(priority=5)
    assert said(replace(VLLM, priorities=True), priority=5)["priority"] == 5
    assert said(PENSTOCK, priority=-1000)["priority"] == -100
    assert "priority" not in said(PENSTOCK, priority=0)


def test_a_choice_goes_on_with_a_longer_prompt_and_less_to_say():
    """Its own log, what is left of both counts, and other noise."""
    going = {"emitted": ((4, 5), None, ()), "n": 3, "min_tokens": 3, "temperature": 1.0, "seed": 8}
    going["stop_tokens"] = frozenset({2})
    first, last = said(**going), said(choice=2, **going)
    assert (first["prompt"], first["max_tokens"], first["min_tokens"]) == ([1, 2, 3, 4, 5], 14, 1)
    assert (last["prompt"], last["max_tokens"], last["min_tokens"]) == ([1, 2, 3], 16, 3)
    assert len({first["seed"], last["seed"], 8}) == 3
    assert said(temperature=1.0, seed=8)["seed"] == 8
    assert said(temperature=1.0, seed=2**63)["seed"] == -(2**63)


def test_nothing_is_held_back_where_nothing_stops():
    """VLLM would hold back its own end token, which may be said like any other here."""
    assert said(min_tokens=9)["min_tokens"] == 0
    check(request(min_tokens=9), VLLM)


REFUSED = [
    (VLLM, "bad_words", {"bad_words": ((1,),)}),
    (VLLM, "thinking", {"thinking": ThinkingBudget(3, (), (4,))}),
    (VLLM, "bias", {"bias": {1: 101.0}}),
    (VLLM, "min_tokens", {"min_tokens": 1, "stop_tokens": frozenset({3})}),
    (VLLM, "emitted", {"presence": 0.1, "emitted": ((4,),)}),
    (VLLM, "emitted", {"frequency": 0.1, "emitted": ((), (4,)), "n": 2}),
    (PLAIN, "top_k", {"top_k": 3}),
    (PLAIN, "min_p", {"min_p": 0.1}),
    (PLAIN, "repetition", {"repetition": 1.1}),
    (PLAIN, "min_tokens", {"min_tokens": 1}),
    (PLAIN, "cache_salt", {"salt": b"s"}),
    (PLAIN, "stop_tokens", {"stop_tokens": frozenset({3})}),
]


@pytest.mark.parametrize(("config", "param", "asked"), REFUSED)
def test_what_cannot_be_said_is_refused_by_name(config, param, asked):
    """Never left out in silence."""
    asked = {"stop_tokens": frozenset({2}), **asked}
    with pytest.raises(Unsupported) as caught:
        check(request(*asked.pop("emitted", ()), **asked), config)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "asked",
    [
        {"repetition": 1.5, "emitted": ((4,),)},
        {"presence": 0.5, "emitted": ((), None), "n": 2},
        {"temperature": 1.0, "emitted": ((4,), (5,)), "n": 2},
        {"allowed": frozenset({1}), "bias": {1: -100.0}, "emitted": ((4,),)},
    ],
)
def test_what_goes_on_unchanged_is_not_refused(asked):
    """A repetition penalty counts the prompt; bias and allowed tokens look at no history."""
    check(request(*asked.pop("emitted"), **asked), VLLM)


def test_capabilities_are_those_of_the_kind():
    """Nobody's prompts are scored, and nobody takes our grammars."""
    assert Kind.VLLM.capabilities == Kind.PENSTOCK.capabilities
    assert Kind.VLLM.capabilities - Kind.PLAIN.capabilities == {
        Capability.LOGPROBS,
        Capability.GUIDES,
    }
    left = {Capability.PROMPT_LOGPROBS, Capability.GRAMMAR}
    assert Kind.VLLM.capabilities == frozenset(Capability) - left


@pytest.mark.parametrize(
    "url",
    [
        "h/v1", "ftp://h/v1", "http:///v1", "http://u:p@h/v1", "http://h/v1?k=1", "http://h#x",
        "http://h:0/v1", "http://h:99999/v1", "http://h:x/v1", "http://h /v1", "http://h\n/v1",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_refused(url):
    """One with a password too: URLs are logged."""
    with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
        upstream_config(url)


def test_a_key_is_not_shown():
    """Not by repr; one that would break a header is refused without being told."""
    assert "hush" not in repr(upstream_config(URL, api_key="hush"))
    with pytest.raises(ValueError, match="header") as caught:
        upstream_config(URL, api_key="hush\r\n")
    assert "hush" not in str(caught.value)


# -- what is read


def reading(*datas, config=VLLM, choice=0, **asked):
    """The events of a choice of these events, and its cursor."""
    emitted = asked.pop("emitted", ())
    cursor = Cursor(request(*emitted, **asked), choice, config)
    news = [cursor.read(data.removeprefix(b"data: ")) for data in datas]
    return [event for event in news if event is not None], cursor


def finish_of(*datas, **asked):
    return reading(*datas, **asked)[1].finish


def test_tokens_come_as_they_are_told_and_the_end_is_read_from_them():
    """Nothing is made of an empty event; the upstream's own finish changes nothing then."""
    got, _ = reading(
        chunk(), chunk(4, 5), chunk(6), chunk(finish="length"), max_tokens=3
    )  # fmt: skip
    assert [event.tokens for event in got] == [[4, 5], [6]]
    assert [event.finish for event in got] == [None, Finish(FinishReason.LENGTH, 3)]


def test_a_stop_token_is_the_last_whatever_follows_it_in_the_event():
    """It is named, and counted with what was emitted."""
    got, cursor = reading(
        chunk(4, 9, 5), stop_tokens=frozenset({9}), emitted=((7, 8),)
    )  # fmt: skip
    assert got[0].tokens == [4, 9]
    assert got[0].finish == Finish(FinishReason.STOP, 4, 9)
    assert not cursor.alone


def test_a_stop_token_that_is_kept_back_is_added():
    """By its reason, or because it is the only one."""
    stops = frozenset({8, 9})
    told_by = chunk(4, finish="stop", stop_reason=9)
    assert finish_of(told_by, stop_tokens=stops) == Finish(FinishReason.STOP, 2, 9)
    told_by = chunk(4, finish="stop", matched_stop=8)
    assert finish_of(told_by, stop_tokens=stops) == Finish(FinishReason.STOP, 2, 8)
    only = reading(chunk(4, finish="stop"), stop_tokens=frozenset({9}))[0]
    assert only[0].tokens == [4, 9]
    for reason in (None, 7, "text"):
        with pytest.raises(RequestFailed, match="nobody asked"):
            reading(chunk(4, finish="stop", stop_reason=reason), stop_tokens=stops)


def test_an_upstream_with_a_bound_of_its_own_ends_by_it():
    """The answer is short, and is not told to be whole."""
    assert finish_of(chunk(4, finish="length")) == Finish(FinishReason.LENGTH, 1)


def test_who_was_not_told_the_stop_tokens_does_not_know_of_the_end():
    """So that its response must be closed; unless it says an end of its own."""
    stops = frozenset({2, 9})
    assert reading(chunk(9), config=PLAIN, stop_tokens=stops)[1].alone
    assert not reading(chunk(2, finish="stop"), config=PLAIN, stop_tokens=stops)[1].alone


def test_log_probabilities_have_their_tokens():
    """Ranked, at most as many as were asked, the sampled token's beside them."""
    told_them = {
        "token_logprobs": [-3.0, -0.5],
        "top_logprobs": [
            {"token_id:4": -3.0, "token_id:8": -0.1, "token_id:9": -2.0},
            {"token_id:5": -0.5, "token_id:8": -1.0},
        ],
    }
    got, _ = reading(chunk(4, 5, logprobs=told_them), logprobs=2)
    assert got[0].logprobs == [
        TokenLogprobs(-3.0, ((8, -0.1), (9, -2.0))),
        TokenLogprobs(-0.5, ((5, -0.5), (8, -1.0))),
    ]
    got, _ = reading(chunk(4, 5, logprobs=told_them), logprobs=0)
    assert [entry.top for entry in got[0].logprobs] == [(), ()]


def test_what_was_cached_is_of_the_prompt():
    """However much the upstream tells."""
    usage = {"prompt_tokens_details": {"cached_tokens": 70}}
    assert reading(event(choices=[], usage=usage))[1].cached == 3
    assert reading(event(choices=[], usage=None))[1].cached == 0


NONSENSE = {
    "no JSON": b"data: {",
    "no object": b"data: []",
    "no text": b"data: \xff",
    "deep": b"data: " + b"[" * 5000,
    "a negative id": chunk(-1),
    "an id too high": chunk(100),
    "a huge id": chunk(10**30),
    "ids as text": chunk("4"),
    "no ids": chunk(token_ids=None, text="a"),
    "another choice": chunk(4, index=1),
    "two choices": event(choices=[{"token_ids": [4]}, {"token_ids": [5]}]),
    "another prompt": chunk(4, prompt_token_ids=[0, 1, 2, 3]),
    "too many tokens": chunk(*[4] * 17),
    "two finishes": chunk(4, finish="length") + chunk(finish="length"),
    "more after the finish": chunk(4, finish="length") + chunk(5),
    "more than was asked": chunk(*[4] * 16) + chunk(5),
    "a number that is none": b'data: {"usage": NaN}',
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_not_believed(said):
    """A stream that says what cannot be has died."""
    with pytest.raises(Nonsense):
        reading(*said.split(b"\n\n"))


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {"token_logprobs": []},
        {"token_logprobs": [None]},
        {"token_logprobs": [-1.0], "top_logprobs": []},
        {"token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]},
        {"token_logprobs": [-1.0], "top_logprobs": [{"token_id:100": -1.0}]},
        {"token_logprobs": [-1.0], "top_logprobs": [{"token_id:-1": -1.0}]},
    ],
)
def test_log_probabilities_that_cannot_be_are_not_believed(logprobs):
    """Left out, or of tokens that are none."""
    with pytest.raises(Nonsense):
        reading(chunk(4, logprobs=logprobs), logprobs=1)


@pytest.mark.parametrize("error", [{"message": "out of\nmemory"}, "out of memory", {"code": 5}])
def test_an_error_in_the_stream_is_a_death(error):
    """In the shapes that servers use."""
    with pytest.raises(EngineDied, match=r"out of memory|does not say why"):
        reading(event(error=error))
    with pytest.raises(EngineDied, match="gave the request up"):
        reading(chunk(finish="abort"))


# -- refusals


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest), (413, InvalidRequest), (422, InvalidRequest),
        (408, EngineUnavailable), (429, EngineUnavailable), (502, EngineUnavailable),
        (503, EngineUnavailable), (504, EngineUnavailable), (301, EngineUnavailable),
        (401, EngineUnavailable), (404, EngineUnavailable), (500, EngineDied), (501, EngineDied),
    ],
)  # fmt: skip
def test_a_status_is_an_error_of_ours(status, kind):
    """The client's fault, a better time, or a failure; our own access is never the client's."""
    assert type(refusal(status, b"")) is kind


def test_a_message_is_shortened_and_printable():
    """What a server says goes to clients and terminals."""
    assert told(b'{"error": {"message": "a\\u001b[2J\\nb"}}') == "a [2J b"
    assert len(told(b'{"error": "' + b"x" * 5000 + b'"}')) == 200
    assert told(b'{"message": "m"}') == "m"
    for nothing in (b"", b"\xff", b"[" * 5000, b"3", b'{"error": 3}'):
        assert told(nothing) == "it does not say why"


def test_a_request_without_choices_to_go_on_is_not_ours_to_judge():
    """`Limits.check` refuses it before."""
    check(GenerationRequest(RequestId("a"), (1,), Sampling(4), 1, emitted=(None,)), VLLM)
