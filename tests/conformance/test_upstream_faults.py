"""An upstream when something goes wrong: each fault ends its own stream, once, and is told."""

import asyncio
import logging

import pytest

from engines.api import Finish, FinishReason
from engines.errors import EngineDied, EngineUnavailable, InvalidRequest, Unsupported
from engines.upstream.config import Kind
from engines.upstream.engine import UpstreamEngine
from tests.support.engines import Answer, ask, read
from tests.support.scripted_upstream import (
    DONE,
    STREAM,
    answer,
    chunk,
    event,
    scripted,
    upstream_config,
)

pytestmark = pytest.mark.anyio

PIECES = [chunk(3), chunk(4), chunk(5, finish="length"), event(choices=[], usage=None), DONE]


async def outcome(stream):
    """The tokens of a choice, its finish, and the error that came in its place."""
    got = Answer()
    try:
        async for news in stream:
            assert got.finish is None, "an event after the finish"
            got.tokens += news.tokens
            got.finish = news.finish
    except EngineDied as error:
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return got.tokens, got.finish, error
    return got.tokens, got.finish, None


async def works(engine, upstream):
    """The next request is served as if nothing had been."""
    upstream.status, upstream.headers, upstream.chunked = "200 OK", [STREAM], True
    upstream.says[:] = [answer(7, 8)]
    answers = await read(engine.generate(ask("next", [1], max_tokens=2)))
    assert answers[0].tokens == [7, 8]
    load = engine.load()
    assert (load.running, load.waiting, load.waiting_tokens, load.alive) == (0, 0, 0, True)


# -- streams that break


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("whole", range(len(PIECES) + 1))
async def test_a_stream_that_is_cut_between_events(whole, chunked):
    """What was told was told; without its end it has died, and behind its end it is whole."""
    async with scripted(PIECES[:whole]) as (engine, upstream):
        upstream.chunked = chunked
        tokens, finish, error = await outcome(engine.generate(ask("a", [1], max_tokens=3)))
        assert tokens == [3, 4, 5][:whole]
        assert finish == (Finish(FinishReason.LENGTH, 3) if whole >= 3 else None)
        assert (error is None) is (whole >= 3)
        await works(engine, upstream)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_stream_that_is_cut_within_an_event(chunked):
    """At many bytes of it: half an event is none."""
    stream = b"".join(PIECES)
    ends = [len(b"".join(PIECES[:count])) for count in range(1, 4)]
    for cut in range(0, len(stream), 11):
        async with scripted([stream[:cut]]) as (engine, upstream):
            upstream.chunked = chunked
            got = await outcome(engine.generate(ask("a", [1], max_tokens=3)))
            assert got[0] == [3, 4, 5][: sum(cut >= end for end in ends)]
            assert (got[2] is None) is (cut >= ends[2])


LIES = {
    "no HTTP stream": [b"garbage\r\n"],
    "no event": [b"data: {\n\n"],
    "binary": [bytes(range(256)) * 10],
    "ids": [chunk(3), chunk(1000), DONE],
    "two finishes": [chunk(3, 4, 5, finish="length"), chunk(finish="length"), DONE],
    "more than asked": [chunk(3, 4, 5), chunk(6), DONE],
    "no ids": [chunk(token_ids=None, text="a"), DONE],
    "another prompt": [chunk(3, prompt_token_ids=[9])],
    "a giant line": [b"data: " + b"x" * (3 << 20)],
    "a giant event": [b"data: x\n" * (1 << 18)],
    "no end": [b": still here\n\n" * (1 << 18)],
    "an error": [chunk(3), event(error={"message": "out of memory"})],
    "an early end": [chunk(3), DONE],
    "given up": [chunk(3, finish="abort"), DONE],
}


@pytest.mark.parametrize("said", LIES.values(), ids=LIES)
async def test_what_cannot_be_ends_its_stream_and_no_other(said):
    """With EngineDied, once; two tokens at most were told, and never a finish."""
    hold = asyncio.Event()
    async with scripted([chunk(7), hold.wait(), chunk(8, finish="length"), DONE], said) as (
        engine,
        upstream,
    ):
        other = engine.generate(ask("other", [1], max_tokens=2))
        assert (await anext(other)).tokens == [7]
        _, finish, error = await outcome(engine.generate(ask("a", [1], max_tokens=3)))
        assert finish is None
        assert isinstance(error, EngineDied)
        hold.set()
        assert (await read(other))[0].tokens == [8]
        await works(engine, upstream)


@pytest.mark.parametrize(
    "headers", [["content-type: application/json"], [STREAM, "content-encoding: gzip"]]
)
async def test_an_answer_that_is_no_plain_stream_is_not_read(headers):
    """JSON from a server that does not stream; bytes that would have to be blown up."""
    async with scripted(answer(3)) as (engine, upstream):
        upstream.headers = headers
        _, _, error = await outcome(engine.generate(ask("a", [1], max_tokens=1)))
        assert "plain stream" in str(error)
        await works(engine, upstream)


async def test_a_silent_upstream_has_died():
    """After the operator's patience, not for ever."""
    async with scripted([chunk(3), asyncio.Event().wait()], silence_s=0.1) as (engine, upstream):
        tokens, _, error = await outcome(engine.generate(ask("a", [1], max_tokens=3)))
        assert (tokens, "ReadTimeout" in str(error)) == ([3], True)
        await works(engine, upstream)


async def test_a_finish_does_not_wait_for_ever(monkeypatch):
    """A server that tells no usage and does not end holds nobody up."""
    monkeypatch.setattr("engines.upstream.following._TAIL_S", 0.05)
    async with scripted([*PIECES[:3], asyncio.Event().wait()]) as (engine, upstream):
        assert (await outcome(engine.generate(ask("a", [1], max_tokens=3))))[0] == [3, 4, 5]
        await works(engine, upstream)


async def test_what_was_cached_may_be_told_last():
    """As vLLM does, behind the finish."""
    usage = event(choices=[], usage={"prompt_tokens_details": {"cached_tokens": 2}})
    async with scripted([*PIECES[:3], usage, DONE]) as (engine, _):
        stream = engine.generate(ask("a", [1, 1, 1], max_tokens=3))
        assert [news.cached async for news in stream][-1] == 2
        assert engine.load().prefix_hit_tokens == 2


async def test_one_choice_that_fails_fails_its_request():
    """Its siblings' responses are closed, and the reader hears it once."""
    forever = asyncio.Event()
    async with scripted([chunk(3), forever.wait()], [chunk(1000)]) as (engine, upstream):
        error = (await outcome(engine.generate(ask("a", [1], n=2, max_tokens=3))))[2]
        assert "vocabulary" in str(error)
        await asyncio.wait_for(upstream.gone.wait(), 10)
        await works(engine, upstream)


# -- streams that are left


async def test_closing_a_stream_closes_its_response():
    """While it waits for the next event, and before its first one."""
    for said in ([chunk(3)], []):
        async with scripted([*said, asyncio.Event().wait()]) as (engine, upstream):
            stream = engine.generate(ask("a", [1], max_tokens=3))
            if said:
                await anext(stream)
            else:
                while len(upstream.bodies) < 2:  # noqa: ASYNC110 - a test waits for a fact
                    await asyncio.sleep(0.001)
            await stream.aclose()
            await asyncio.wait_for(upstream.gone.wait(), 10)
            await works(engine, upstream)


async def test_an_end_that_the_upstream_cannot_know_closes_its_response():
    """A stop token that OpenAI's fields have no place for."""
    never = asyncio.Event()
    async with scripted([chunk(3), chunk(9), never.wait()], kind=Kind.PLAIN) as (engine, upstream):
        stops = frozenset({2, 9})
        tokens, finish, _ = await outcome(engine.generate(ask("a", [1], stop_tokens=stops)))
        assert (tokens, finish) == ([3, 9], Finish(FinishReason.STOP, 2, 9))
        await asyncio.wait_for(upstream.gone.wait(), 10)
        assert not {"stop_token_ids", "ignore_eos"} & upstream.bodies[1].keys()
        with pytest.raises(Unsupported, match="end tokens"):
            engine.generate(ask("b", [1]))


async def test_no_more_streams_are_open_than_are_allowed():
    """The next waits here, is counted, and begins when one ends."""
    hold = asyncio.Event()
    first = [chunk(3), hold.wait(), chunk(4, finish="length"), DONE]
    async with scripted(first, answer(5, 6), max_running=1) as (engine, upstream):
        one = engine.generate(ask("one", [1], max_tokens=2))
        two = engine.generate(ask("two", [1, 2], max_tokens=2))
        await anext(one)
        load = engine.load()
        assert (load.running, load.waiting, load.waiting_tokens) == (1, 1, 2)
        assert len(upstream.bodies) == 2
        hold.set()
        assert (await read(two))[0].tokens == [5, 6]
        assert (await read(one))[0].tokens == [4]


# -- refusals


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("400 Bad Request", InvalidRequest, "too much asked"),
        ("429 Too Many Requests", EngineUnavailable, "429"),
        ("503 Service Unavailable", EngineUnavailable, "503"),
        ("500 Internal Server Error", EngineDied, "500"),
        ("401 Unauthorized", EngineUnavailable, "401"),
    ],
)
async def test_a_refusal_is_told_as_what_it_is(status, kind, words):
    """And nothing of it hangs."""
    async with scripted(b'{"error": {"message": "too much asked"}}') as (engine, upstream):
        upstream.status = status
        with pytest.raises(kind, match=words):
            await read(engine.generate(ask("a", [1])))
        await works(engine, upstream)


async def test_a_redirect_is_not_followed():
    """The prompt and the key go where the operator said."""
    async with scripted(b"") as (engine, upstream):
        upstream.status = "307 Temporary Redirect"
        upstream.headers = [f"location: {upstream.url}/elsewhere"]
        with pytest.raises(EngineUnavailable, match="307"):
            await read(engine.generate(ask("a", [1])))
        assert {path for path, _, _ in upstream.heard} == {"/v1/models", "/v1/completions"}


async def test_an_upstream_that_has_gone_is_unavailable():
    """Nothing had begun: it may be tried again."""
    async with scripted() as (engine, upstream):
        await upstream.stop()
        with pytest.raises(EngineUnavailable, match="cannot be reached"):
            await read(engine.generate(ask("a", [1])))
        assert engine.load().alive


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch):
    """It would see every prompt."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with scripted() as (engine, upstream):
        await works(engine, upstream)


async def test_the_key_is_sent_and_never_logged(caplog):
    """In its header; at no level in any logger's lines."""
    caplog.set_level(logging.DEBUG)
    async with scripted([chunk(1000)], api_key="hush-hush") as (engine, upstream):
        await outcome(engine.generate(ask("a", [1])))
        for _, headers, _ in upstream.heard:
            assert "authorization: Bearer hush-hush" in [
                header.replace("Authorization", "authorization") for header in headers
            ]
    assert "lied" in caplog.text
    assert "hush" not in caplog.text


# -- the start


async def refused_at_start(prepare, **changes):
    """Why an engine did not start before an upstream that was prepared so."""
    async with scripted() as (_, upstream):
        upstream.heard.clear()
        prepare(upstream)
        engine = UpstreamEngine(upstream_config(upstream.url, **changes))
        with pytest.raises(EngineUnavailable) as caught:
            await engine.start()
        with pytest.raises(EngineUnavailable, match="not started"):
            engine.generate(ask("a", [1]))
        await engine.stop(0)
        return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probe": chunk(token_ids=None, text="a") + DONE}, "returns no token ids"),
        ({"probe": chunk(5, prompt_token_ids=[1, 0])}, "another prompt"),
        ({"probe": chunk(500)}, "vocabulary of 100"),
        ({"probe": b""}, "ended before"),
        ({"models": {"data": [{"id": "m"}]}}, "max_context must be set"),
        ({"models": {"data": []}}, "does not list"),
        ({"models": {"detail": "Not Found"}}, "end in /v1"),
    ],
)
async def test_an_upstream_that_cannot_be_used_is_refused_at_start(changes, words):
    """With the reason, and its URL."""

    def prepare(upstream):
        for name, value in changes.items():
            setattr(upstream, name, value)

    why = await refused_at_start(prepare)
    assert words in why
    assert "http://127.0.0.1" in why


async def test_a_model_that_is_not_listed_is_refused_at_start():
    """A name that the operator gave is one that the upstream must have."""
    assert "does not list" in await refused_at_start(lambda _: None, model="other")


async def test_the_model_and_its_context_are_the_upstreams():
    """Of the model that is named; the operator can only make the context smaller."""
    async with scripted(max_context=50) as (engine, upstream):
        assert (engine.info.model, engine.info.max_context) == ("m", 50)
        assert upstream.bodies[0]["model"] == "m"
        with pytest.raises(InvalidRequest, match="50 tokens"):
            engine.generate(ask("a", [1] * 40))
    async with scripted(max_context=5000) as (engine, _):
        assert engine.info.max_context == 64
