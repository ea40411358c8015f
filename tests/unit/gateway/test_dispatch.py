"""Dispatch: streams merge, stops stop, errors surface, everything is given back."""

import asyncio
import threading
from dataclasses import replace

import pytest

from engines.api import FinishReason, GenerationRequest, Sampling
from engines.errors import ContextOverflow, EngineDied
from gateway.admission import Admission
from gateway.dispatch import Dispatcher
from gateway.exchange import Exchange
from gateway.metrics import Metrics
from openai_compat.errors import Overloaded
from tests.support.fake_engine import FakeEngine, FakeRenderer, fake_job


class Clock:
    """A clock that moves when told."""

    now = 100.0

    def __call__(self):
        return self.now


class Renderer(FakeRenderer):
    """Tells the engine's finish, or stop where a stop string matched; counts as told."""

    def __init__(self, completion_tokens=None):
        super().__init__()
        self.counted = completion_tokens
        self.folded_in = None

    def feed(self, request, event):
        rendered = super().feed(request, event)
        if rendered.ended:
            ended = () if event.finish else rendered.ended  # the engine's choice is over anyway
            return rendered._replace(finish=FinishReason.STOP, ended=ended)
        return rendered._replace(finish=event.finish and event.finish.reason)

    def fold(self):
        self.folded_in = threading.current_thread()
        return super().fold()

    @property
    def usage(self):
        usage = super().usage
        return usage if self.counted is None else replace(usage, completion_tokens=self.counted)


class World:
    """A dispatcher over a fake engine."""

    def __init__(self, max_sequences=8):
        self.engine = FakeEngine()
        self.clock = Clock()
        self.metrics = Metrics("test")
        self.admission = Admission(max_sequences=max_sequences, max_waiting_tokens=1000)
        self.dispatcher = Dispatcher(self.engine, self.admission, self.metrics, self.clock)
        self.exchange = Exchange("req-1", "POST", self.clock.now)

    async def start(self, *requests, renderer=None, **options):
        self.job = replace(fake_job(*requests, **options), renderer=renderer or Renderer())
        return await self.dispatcher.start(self.job, self.exchange)

    def sample(self, name):
        return self.metrics.registry.get_sample_value(name)


def request(n=1, prompt=(1, 2, 3)):
    return GenerationRequest("call-1", prompt, Sampling(max_tokens=8), n=n)


def run(test):
    return asyncio.run(asyncio.wait_for(test, 10))


async def collected(frames):
    return b"".join([some async for some in frames])


def test_one_request_streams_in_order():
    """begin, the events, finish."""

    async def scenario():
        world = World()
        call = await world.start(request())
        stream = world.engine.streams[0]
        stream.emit(5, 6)
        stream.emit(7, finish="stop")
        frames = await collected(call.frames())
        await call.aclose()
        assert frames == b"begin;0.0=[5, 6];0.0=[7];done;"

    run(scenario())


def test_an_answer_folds_the_same_events():
    """There is no second path for calls that do not stream."""

    async def scenario():
        world = World()
        call = await world.start(request(), stream=False)
        world.engine.streams[0].emit(5, finish="length")
        assert await call.answer() == b"[(0, 0, (5,))]"
        assert world.exchange.finishes == ["length"]

    run(scenario())


def test_several_requests_merge_as_they_come():
    """A slow request does not hold the others back, and each keeps its own order."""

    async def scenario():
        world = World()
        call = await world.start(request(), request(), request())
        first, second, third = world.engine.streams
        frames = call.frames()
        assert await anext(frames) == b"begin;"
        third.emit(7, finish="stop")
        assert await anext(frames) == b"2.0=[7];"
        second.emit(5)
        second.emit(6, finish="stop")
        first.emit(4, finish="stop")
        rest = await collected(frames)
        assert sorted(rest.split(b";")) == [b"", b"0.0=[4]", b"1.0=[5]", b"1.0=[6]", b"done"]
        assert rest.index(b"1.0=[5]") < rest.index(b"1.0=[6]")

    run(scenario())


def test_what_is_known_together_goes_out_together():
    """Events of several streams that wait are one write."""

    async def scenario():
        world = World()
        call = await world.start(request(), request())
        for stream in world.engine.streams:
            stream.emit(9, finish="stop")
        parts = [part async for part in call.frames()]
        assert len(parts) == 3, parts

    run(scenario())


def test_a_matched_stop_string_ends_its_choice():
    """The engine computes no more of it, and its finish is a stop."""

    async def scenario():
        world = World()
        call = await world.start(request(n=2))
        stream = world.engine.streams[0]
        stream.emit(3, choice=1)
        stream.emit(0, choice=1)
        stream.emit(4, choice=0, finish="length")
        await collected(call.frames())
        assert stream.ended == [1]
        assert world.exchange.finishes == ["stop", "length"]

    run(scenario())


def test_the_finish_that_is_logged_is_the_one_the_client_saw():
    """A stop string matches in the event with which the engine says length: that is a stop."""

    async def scenario():
        world = World()
        call = await world.start(request())
        world.engine.streams[0].emit(0, finish="length")
        await collected(call.frames())
        assert world.exchange.finishes == ["stop"]

    run(scenario())


@pytest.mark.parametrize(
    ("logprobs", "tokens", "aside"),
    [(None, 10**6, False), (20, 230, False), (20, 240, True), (0, 5001, True), (0, 5000, False)],
)
def test_a_long_answer_with_logprobs_is_folded_aside(logprobs, tokens, aside):
    """Else every other stream would wait for it; a short one is not worth a thread."""

    async def scenario():
        world, renderer = World(), Renderer(completion_tokens=tokens)
        asked = replace(request(), sampling=Sampling(max_tokens=8, logprobs=logprobs))
        call = await world.start(asked, renderer=renderer, stream=False)
        world.engine.streams[0].emit(5, finish="length")
        assert await call.answer() == b"[(0, 0, (5,))]"
        assert (renderer.folded_in is not threading.current_thread()) == aside
        await call.aclose()

    run(scenario())


def test_what_came_before_a_failure_is_delivered_before_it():
    """Also when it was taken in one go with the failure of another prompt's stream."""

    async def scenario():
        world = World()
        call = await world.start(request(), request())
        first, second = world.engine.streams
        frames = call.frames()
        assert await anext(frames) == b"begin;"
        first.emit(5)
        first.emit(6)
        second.fail(EngineDied("gone"))
        assert await anext(frames) == b"0.0=[5];0.0=[6];"
        with pytest.raises(EngineDied):
            await anext(frames)
        await call.aclose()

    run(scenario())


def test_an_engine_error_reaches_the_reader_once():
    """After what was emitted before it."""

    async def scenario():
        for requests in ([request()], [request(), request()]):
            world = World()
            call = await world.start(*requests)
            world.engine.streams[0].emit(5)
            frames = call.frames()
            assert await anext(frames) == b"begin;"
            assert await anext(frames) == b"0.0=[5];"
            world.engine.streams[0].fail(EngineDied("gone"))
            with pytest.raises(EngineDied):
                await anext(frames)
            await call.aclose()
            assert all(stream.closed for stream in world.engine.streams)

    run(scenario())


def test_closing_a_call_aborts_its_streams_and_frees_its_place():
    """At any moment, and twice is once."""

    async def scenario():
        world = World()
        call = await world.start(request(), request())
        frames = call.frames()
        await anext(frames)
        await frames.aclose()
        await call.aclose()
        await call.aclose()
        assert all(stream.closed for stream in world.engine.streams)
        assert (world.admission.sequences, world.admission.waiting_tokens) == (0, 0)
        assert len(asyncio.all_tasks()) == 1 + 1, "only this test and its timeout run"

    run(scenario())


def test_a_refused_request_closes_those_before_it():
    """One of a batch can never be served: nothing of it runs, and admission is given back."""

    async def scenario():
        world = World()
        world.engine.refusals = [None, ContextOverflow("too long", param="prompt")]
        with pytest.raises(ContextOverflow):
            await world.start(request(), request(), request())
        assert [stream.closed for stream in world.engine.streams] == [True]
        assert world.admission.sequences == 0

    run(scenario())


def test_a_full_queue_refuses_before_the_engine():
    """Nothing is started for a call without a place."""

    async def scenario():
        world = World(max_sequences=2)
        await world.start(request(n=2))
        with pytest.raises(Overloaded):
            await world.start(request())
        assert len(world.engine.streams) == 1

    run(scenario())


def test_times_and_tokens_are_observed():
    """First token, gaps per token, usage and finishes."""

    async def scenario():
        world = World()
        call = await world.start(request())
        stream, frames = world.engine.streams[0], call.frames()
        await anext(frames)
        world.clock.now += 0.5
        stream.emit(5)
        await anext(frames)
        assert world.admission.waiting_tokens == 0
        world.clock.now += 0.3
        stream.emit(6, 7, 8, finish="length")
        await collected(frames)
        await call.aclose()
        assert world.sample("penstock_time_to_first_token_seconds_sum") == pytest.approx(0.5)
        assert world.sample("penstock_inter_token_seconds_sum") == pytest.approx(0.1)
        assert world.exchange.ttft_s == pytest.approx(0.5)
        exchange = world.exchange
        assert (exchange.prompt_tokens, exchange.completion_tokens) == (10, 4)

    run(scenario())


def test_each_prompt_waits_until_its_own_first_token():
    """A batch is not through the queue with its first prompt."""

    async def scenario():
        world = World()
        call = await world.start(request(prompt=(1,) * 10), request(prompt=(1,) * 20))
        frames = call.frames()
        await anext(frames)
        assert world.admission.waiting_tokens == 30
        world.engine.streams[0].emit(5)
        await anext(frames)
        assert world.admission.waiting_tokens == 20
        await frames.aclose()
        await call.aclose()
        assert world.admission.waiting_tokens == 0

    run(scenario())


def test_idle_waits_for_the_last_call():
    """What a drain waits for."""

    async def scenario():
        world = World()
        await world.dispatcher.idle()
        one, two = await world.start(request()), await world.start(request())
        waiting = asyncio.create_task(world.dispatcher.idle())
        await one.aclose()
        await asyncio.sleep(0)
        assert not waiting.done()
        await two.aclose()
        await waiting

    run(scenario())
