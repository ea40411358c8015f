"""Going on from a log: at the worker that has the rest, else anew; what passes is waited for."""

import asyncio
from dataclasses import replace

import pytest

from engines.api import GenerationRequest, Kept, RequestId, Sampling, TokenEvent
from engines.errors import EngineUnavailable, InvalidRequest, RequestUnknown
from engines.replicas import ReplicaSet
from gateway.durable import going_on
from gateway.durable.going_on import LoggedCall
from gateway.durable.resumed import ResumedStream
from gateway.durable.token_log import TokenLog, read_log
from gateway.durable.written import LoggedRenderer
from gateway.merge import merged
from openai_compat.errors import ApiError, ErrorReply
from tests.support.fake_engine import FakeRenderer
from tests.support.replicas import Fate, HandEngine, HandStream, voice

REQUEST = GenerationRequest(
    RequestId("call"), (1, 2, 3), Sampling(max_tokens=12), n=2, kept=Kept(b"record")
)


class KeptEngine(HandEngine):
    """A worker that keeps requests, and may be late to say so."""

    def __init__(self):
        super().__init__([])
        self.kept = {}
        self.silent = 0  # so many times it does not say what it has
        self.knows = True
        self.detached = []

    async def find(self, name):
        if self.silent:
            self.silent -= 1
            raise EngineUnavailable("the worker does not say what it keeps")
        return self.kept.get(name)

    def attach(self, request, *, watch=False):
        del watch
        stream = (HandStream if self.knows else Unknown)(self, request, Fate())
        self.streams.append(stream)
        return stream

    def detach(self, stream):
        self.detached.append(stream)


class Unknown(HandStream):
    """What a worker tells that has less than it was asked for."""

    async def __anext__(self):
        raise RequestUnknown("not from there on")


class World:
    """A log of a call with two choices, and a set with one worker."""

    def __init__(self, told=(3, 2)):
        self.engine, self.replicas = KeptEngine(), ReplicaSet()
        self.replicas.add("one", self.engine)
        self.alone = 0
        self.log = [
            TokenEvent(choice, voice(REQUEST, choice)[0][:count], 0)
            for choice, count in enumerate(told)
            if count
        ]

    async def note_alone(self):
        self.alone += 1

    async def stream(self, **options):
        logged = LoggedCall([list(self.log)], 3, self.note_alone, **options)
        (stream,) = await logged.attach(self.replicas, (REQUEST,), watch=False)
        return stream

    async def read(self, **options):
        told, ends = {0: [], 1: []}, set()
        async for event in await self.stream(**options):
            told[event.choice] += event.tokens
            ends |= {event.choice} if event.finish else set()
        assert ends == {0, 1}
        return told


WHOLE = {choice: voice(REQUEST, choice)[0] for choice in range(2)}


def run(scenario, **world):
    asyncio.run(asyncio.wait_for(scenario(World(**world)), 20))


@pytest.mark.parametrize("told", [(0, 0), (3, 0), (3, 2), (12, 2)])
def test_anew_it_goes_on_behind_the_log(told):
    """Nothing lost, nothing twice; with an attempt that no earlier owner comes to."""

    async def scenario(world):
        if told[0] == 12:
            world.log[0].finish = voice(REQUEST, 0)[1]
        assert await world.read() == WHOLE
        (stream,) = world.engine.streams
        assert stream.request.kept == Kept(b"record", 3000)
        assert world.alone == 1

    run(scenario, told=told)


def test_a_worker_that_has_it_is_attached_to():
    """Nobody computes a token of it again."""

    async def scenario(world):
        world.engine.kept[REQUEST.id] = Kept(b"record", 7)
        assert await world.read() == WHOLE
        (stream,) = world.engine.streams
        assert stream.request.kept.attempt == 8
        assert world.alone == 0

    run(scenario)


def test_a_worker_that_has_less_is_not_gone_on_with():
    """It is asked anew, and the worker is let go."""

    async def scenario(world):
        world.engine.kept[REQUEST.id] = Kept(b"record", 7)
        world.engine.knows = False
        assert await world.read() == WHOLE
        assert world.alone == 1

    run(scenario)


def test_a_worker_that_does_not_say_what_it_has_is_waited_for(monkeypatch):
    """For a moment, as it may have the call; one that hangs holds nobody up."""
    monkeypatch.setattr(going_on, "_LOOK_S", 0.001)
    monkeypatch.setattr(going_on, "_SAYS_WITHIN_S", 0.1)

    async def scenario(world):
        world.engine.kept[REQUEST.id] = Kept(b"record", 7)
        world.engine.silent = 3
        assert await world.read() == WHOLE
        assert world.alone == 0
        world.engine.silent = 10**9
        assert await world.read() == WHOLE
        assert world.alone == 1

    run(scenario)


def test_an_id_that_is_open_still_is_waited_for(monkeypatch):
    """A stream of this process that has not noticed yet that it was taken holds nobody up."""
    monkeypatch.setattr(going_on, "_LOOK_S", 0.001)

    async def scenario(world):
        before = world.replicas.generate(replace(REQUEST, emitted=()))
        reading = asyncio.create_task(world.read())
        await asyncio.sleep(0.05)
        assert not reading.done()
        await before.aclose()
        assert await reading == WHOLE
        assert world.alone == 1

    run(scenario)


def test_without_any_worker_it_ends_in_time(monkeypatch):
    """As unavailable, which is no end of the call; what cannot be served is told at once."""
    monkeypatch.setattr(going_on, "_LOOK_S", 0.001)
    monkeypatch.setattr(going_on, "_WAIT_S", 0.05)

    async def scenario(world):
        world.replicas.retire("one")
        with pytest.raises(EngineUnavailable):
            await world.read()
        world.engine.generate = refuse
        world.replicas.retire("one", retired=False)
        with pytest.raises(InvalidRequest):
            await world.read()

    run(scenario)


def refuse(_):
    """An engine that can never serve it."""
    raise InvalidRequest("it is too long", param="prompt")


def test_how_it_failed_is_told_behind_the_log():
    """Every token first; no worker is asked."""

    async def scenario(world):
        failed = ErrorReply(400, "invalid_request_error", "grammar_failed", "too much")
        stream = await world.stream(failed=failed)
        told = [(await anext(stream)).tokens, (await anext(stream)).tokens]
        assert told == [WHOLE[0][:3], WHOLE[1][:2]]
        with pytest.raises(ApiError) as caught:
            await anext(stream)
        assert caught.value.reply == failed
        assert world.engine.streams == []

    run(scenario)


def test_who_reads_a_durable_call_owns_it():
    """There is no watching beside."""

    async def scenario(world):
        logged = LoggedCall([list(world.log)], 3, world.note_alone)
        with pytest.raises(ValueError, match="owns"):
            await logged.attach(world.replicas, (REQUEST,), watch=True)

    run(scenario)


def test_what_the_reader_ended_in_the_log_is_not_asked_for():
    """A stop string matched there: with both ended, nothing is opened at all."""

    async def scenario(world):
        stream = await world.stream()
        for choice in range(2):
            await anext(stream)
            stream.end_choice(choice)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert world.engine.streams == []
        stream = await world.stream()
        await anext(stream)
        stream.end_choice(0)
        await anext(stream)
        assert (await anext(stream)).choice == 1
        assert world.engine.streams[0].request.emitted == (None, tuple(WHOLE[1][:2]))

    run(scenario)


def test_a_stream_that_is_closed_opens_nothing():
    """Before its log was read, and after; detached or closed."""

    async def scenario(world):
        for leave in (ResumedStream.aclose, ResumedStream.detach):
            stream = await world.stream()
            await anext(stream)
            left = leave(stream)
            if left is not None:
                await left
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert world.engine.streams == []

    run(scenario)


def test_a_stream_that_is_detached_goes_on_at_its_worker():
    """Whoever is next finds it there."""

    async def scenario(world):
        stream = await world.stream()
        for _ in range(3):
            await anext(stream)
        stream.detach()
        assert world.engine.detached == world.engine.streams

    run(scenario)


def test_a_choice_that_its_text_ended_has_ended_in_the_log():
    """With several prompts nobody would know before its rest is asked for: none is, of any."""

    async def scenario(world):
        log = TokenLog()
        renderer = LoggedRenderer(FakeRenderer(), log)
        requests = [replace(REQUEST, id=RequestId(f"call-{place}"), n=1) for place in range(2)]
        for place in range(2):
            renderer.feed(place, TokenEvent(0, [1, 0, 5], 0))  # 0: a stop string matched
            renderer.feed(place, TokenEvent(0, [7], 0))  # was on its way by then
        log.cut()
        logged = LoggedCall(read_log(log.chunks, requests), 3, world.note_alone)
        streams = await logged.attach(world.replicas, tuple(requests), watch=False)
        told = [event.tokens async for batch in merged(streams) for _, event in batch]
        assert told == [[1, 0, 5]] * 2
        assert (world.alone, world.engine.streams) == (0, [])
        again = TokenLog(log.chunks)
        again.add(0, TokenEvent(0, [1, 0, 5], 0))
        again.add(0, TokenEvent(0, [7], 0))
        assert not again.waits

    run(scenario)
