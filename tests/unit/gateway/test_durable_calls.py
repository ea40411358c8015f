"""Coming back to a durable stream: to what is written, to what a worker has, or told why not."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engines.api import GenerationRequest, Kept, RequestId, Sampling, TokenEvent
from engines.replicas import ReplicaSet
from gateway.admission import Admission
from gateway.auth import Caller
from gateway.dispatch import Dispatcher
from gateway.durable.ending import pack_ending, unpack_ending
from gateway.durable.journal import name_of
from gateway.durable.responses import Durable
from gateway.durable.token_log import TokenLog, read_log
from gateway.exchange import Exchange
from gateway.kept_stream import CallRecord, Route
from gateway.lifecycle import Lifecycle, Serving
from gateway.metrics import Metrics
from gateway.rest.durable_calls import DurableCalls
from gateway.rest.sse import Pace
from openai_compat.cursor import parse_cursor
from openai_compat.errors import ApiError, RequestRejected
from openai_compat.job import Rendered
from openai_compat.responses.snapshot import Status
from tests.support.durable_world import soon
from tests.support.fake_engine import FakeRenderer, fake_job
from tests.support.kept_worker import KeptWorker
from tests.support.memory_journal import MemoryJournal, MemoryLeases
from tests.support.replicas import voice

SALT, STEM = b"salt", "0" * 24
NAME = name_of(SALT, STEM)
REQUEST = GenerationRequest(RequestId(STEM), (1, 2, 3), Sampling(max_tokens=12))
WHOLE = voice(REQUEST, 0)[0]


class Lines(FakeRenderer):
    """Each event as one frame with its tokens."""

    def begin(self):
        return b""

    def feed(self, request, event):
        super().feed(request, event)
        return Rendered(b"data: %a\n\n" % event.tokens if event.tokens else b"")

    def finish(self):
        return b"data: [DONE]\n\n"


class Calls:
    """What lowers and starts calls: here each is the same one."""

    pace = Pace(0, 10)

    async def lowered(self, raw, serving, exchange, context, lower):
        return replace(fake_job(REQUEST), id=f"chatcmpl-{STEM}", renderer=Lines())


class World:
    """A journal with a call in it, a worker, and one gateway."""

    def __init__(self, written=4):
        self.journal, self.worker = MemoryJournal(), KeptWorker()
        self.worker.says = 12
        self.replicas, self.lifecycle = ReplicaSet(), Lifecycle()
        self.replicas.add("one", self.worker)
        self.admission = Admission(max_sequences=8, max_waiting_tokens=1000)
        dispatcher = Dispatcher(self.replicas, self.admission, Metrics("test"), lambda: 0.0)
        self.lifecycle.ready(Serving(self.replicas, {}, dispatcher, None, None, self.replicas))
        durable = Durable(self.journal, MemoryLeases())
        self.calls = DurableCalls(self.lifecycle, Calls(), durable)
        self.log = TokenLog()
        self.log.add(0, TokenEvent(0, WHOLE[:written], 0))
        self.log.cut()

    async def enter(self):
        record = CallRecord(Route.CHAT, 1, 2, SALT, b"{}")
        await self.journal.begin(NAME, record.pack(), 1)
        await self.journal.append(NAME, 1, 0, self.log.chunks)

    async def resume(self, after, route=Route.CHAT, salt=SALT):
        exchange = Exchange("req-1", "GET", 0.0, caller=Caller(salt))
        scope = {}
        exchange.attach(scope)
        request = SimpleNamespace(scope=scope)
        return await self.calls.resume(request, None, STEM, route, parse_cursor(after))

    async def tokens(self, response):
        told, source = [], response._source
        async for some in source.frames():
            for frame in some.decode().split("\n\n")[:-1]:
                line = frame.splitlines()[0].removeprefix("data: ")
                told += [] if line == "[DONE]" else [int(each) for each in line[1:-1].split(",")]
        await source.aclose()
        return told

    @property
    def entry(self):
        return self.journal.entries[NAME]

    @property
    def written(self):
        return read_log(self.entry.chunks, [REQUEST])[0][0].tokens


def run(scenario, **world):
    async def begun():
        made = World(**world)
        await made.enter()
        await scenario(made)

    asyncio.run(asyncio.wait_for(begun(), 20))


@pytest.mark.parametrize("after", range(5))
@pytest.mark.parametrize("kept", [True, False])
def test_the_rest_comes_from_any_place_that_is_written(after, kept):
    """Wherever it is computed; then it has ended, and is all written."""

    async def scenario(world):
        if kept:
            world.worker.kept[REQUEST.id] = Kept(b"", 5)
        response = await world.resume(str(after))
        assert response.headers["x-stream-resume"] == "durable; ttl=600"
        assert await world.tokens(response) == WHOLE[after:]
        assert len(world.worker.generated) == (not kept)
        assert (world.written, world.journal.fences[NAME]) == (WHOLE, 2)
        assert unpack_ending(world.entry.ending).status is Status.COMPLETED
        assert world.admission.sequences == 0

    run(scenario)


def test_what_only_a_worker_has_is_gone_on_with():
    """What was told while the journal was away is not lost as long as anybody has it."""

    async def scenario(world):
        world.worker.kept[REQUEST.id] = Kept(b"", 5)
        assert await world.tokens(await world.resume("9")) == WHOLE[9:]
        assert (world.written, world.worker.generated) == (WHOLE, [])

    run(scenario)


def test_what_nobody_has_is_told_and_nobody_is_disturbed():
    """409 with the place that is known; whoever reads the stream goes on reading it."""

    async def scenario(world):
        with pytest.raises(RequestRejected) as caught:
            await world.resume("9")
        reply = caught.value.reply
        assert (reply.status, reply.code) == (409, "stream_resume_gap")
        assert "after 4 tokens" in reply.message
        assert world.journal.fences[NAME] == 1

    run(scenario)


def test_a_worker_that_forgets_it_meanwhile_is_not_made_up_for():
    """Behind the log nothing is told anew: the reader has something there already."""

    async def scenario(world):
        world.worker.kept[REQUEST.id] = Kept(b"", 5)
        response = await world.resume("9")
        world.worker.keeps = False
        with pytest.raises(RequestRejected) as caught:
            await world.tokens(response)
        assert caught.value.reply.code == "stream_resume_gap"
        assert world.worker.generated == []
        await response._source.aclose()
        assert world.entry.ending == b""

    run(scenario)


def test_a_place_of_another_stream_disturbs_nobody():
    """Refused before anything is claimed."""

    async def scenario(world):
        with pytest.raises(RequestRejected):
            await world.resume("1.1")
        assert world.journal.fences[NAME] == 1

    run(scenario)


def test_what_has_ended_is_told_again_without_a_worker():
    """As often as somebody asks, and it is nobody's to claim."""

    async def scenario(world):
        await world.tokens(await world.resume("0"))
        world.worker.keeps = False
        for after in (0, 12):
            assert await world.tokens(await world.resume(str(after))) == WHOLE[after:]
        assert (world.journal.fences[NAME], len(world.worker.generated)) == (2, 1)

    run(scenario)


def test_what_has_failed_fails_again_behind_what_it_said():
    """With the same error."""

    async def scenario(world):
        error = RequestRejected("too much", code="grammar_failed").reply
        await world.journal.end(NAME, 1, pack_ending(Status.FAILED, error), 60)
        response = await world.resume("2")
        told = []
        frames = response._source.frames()
        told.append(await anext(frames))
        assert told[0].startswith(b"data: %a\n" % WHOLE[2:4])
        with pytest.raises(ApiError) as caught:
            await anext(frames)
        assert caught.value.reply == error
        await response._source.aclose()
        assert unpack_ending(world.entry.ending).error == error

    run(scenario)


def test_others_find_nothing():
    """By another salt, or on another route."""

    async def scenario(world):
        assert await world.resume("0", route=Route.COMPLETIONS) is None
        assert await world.resume("0", salt=b"other") is None
        assert world.journal.fences[NAME] == 1

    run(scenario)


def test_of_two_who_come_back_at_once_each_is_told_right():
    """One has it in the end; the other read no other text before it was told so."""

    async def scenario(world):
        world.worker.kept[REQUEST.id] = Kept(b"", 5)
        world.worker.says = 6
        first, second = await world.resume("0"), await world.resume("2")
        assert world.journal.fences[NAME] == 3
        reading = asyncio.create_task(world.tokens(second))
        await soon(lambda: len(world.written) > 4)
        world.worker.says = 12
        assert await reading == WHOLE[2:]
        await first._source.aclose()
        assert world.written == WHOLE

    run(scenario)
