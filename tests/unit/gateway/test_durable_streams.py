"""Durable streams over a hand-driven engine: their readers come and go, and every end is right."""

import asyncio

import pytest

from engines.errors import EngineDied, EngineUnavailable, RequestQuarantined, RequestTaken
from gateway.durable.ending import unpack_ending
from gateway.durable.streams import DurableStream, Unread
from gateway.lifecycle import Lifecycle
from gateway.replies import reply_for
from openai_compat.responses.snapshot import Status
from tests.support.durable_world import NAME, DurableWorld, others, soon


class World(DurableWorld):
    """A durable stream, and what goes on unread."""

    async def begin(self):
        await super().begin()
        self.lifecycle = Lifecycle()
        self.unread = Unread(self.lifecycle)
        self.source = DurableStream(self.frames, self.unread.add)
        return self

    async def read(self):
        """Read to the end, as the response does that is sent."""
        told = b""
        try:
            async for some in self.source.frames():
                told += some
        except Exception as error:  # noqa: BLE001 - as there
            told += self.source.fail(reply_for(error))
        await self.source.aclose()
        return told

    @property
    def ending(self):
        packed = self.journal.entries[NAME].ending
        return unpack_ending(packed) if packed else None


def run(scenario):
    async def begun():
        before = asyncio.all_tasks()
        world = await World().begin()
        await scenario(world)
        await asyncio.sleep(0)
        assert not others(before), "a task goes on"

    asyncio.run(asyncio.wait_for(begun(), 20))


def test_what_was_read_to_its_end_has_ended():
    """Completed, with all of its tokens, and everything is given back."""

    async def scenario(world):
        world.stream.emit(1, 2, finish="stop")
        assert (await world.read()).endswith(b"done;")
        assert (world.written, world.ending.status) == ([1, 2], Status.COMPLETED)
        assert world.given_back

    run(scenario)


@pytest.mark.parametrize("frames", [0, 1])
def test_what_is_left_goes_on_unread(frames):
    """Also where its reader went before the first frame."""

    async def scenario(world):
        reading = world.source.frames()
        for _ in range(frames):
            await anext(reading)
        await reading.aclose()
        await world.source.aclose()
        world.stream.emit(1, 2, finish="stop")
        await soon(lambda: world.ending is not None)
        assert (world.written, world.ending.status) == ([1, 2], Status.COMPLETED)
        await soon(lambda: not world.unread._going)
        assert world.given_back

    run(scenario)


def test_what_its_request_has_cost_by_then_is_counted_with_it():
    """The request ends when its reader goes: its log line and the metrics are written then."""

    async def scenario(world):
        frames = world.source.frames()
        world.stream.emit(1, 2)
        await anext(frames)
        await soon(lambda: world.written == [1, 2])
        await frames.aclose()
        await world.source.aclose()
        assert (world.exchange.prompt_tokens, world.exchange.completion_tokens) == (10, 2)
        assert world.admission.sequences == 1
        world.stream.emit(3, finish="stop")
        await soon(lambda: not world.unread._going)

    run(scenario)


def test_what_ends_unread_while_the_journal_is_away_is_written_when_it_is_back():
    """All of it, since nobody else has it; and its place in the queue is given back before."""

    async def scenario(world):
        await world.source.aclose()
        world.journal.away = True
        world.stream.emit(1, 2, finish="stop")
        await soon(lambda: world.given_back)
        assert world.ending is None
        world.journal.away = False
        await soon(lambda: world.ending is not None)
        assert (world.written, world.ending.status) == ([1, 2], Status.COMPLETED)
        await soon(lambda: not world.unread._going)

    run(scenario)


def test_a_gateway_that_ends_leaves_what_is_read():
    """No error and no end: its reader is cut off, and comes back elsewhere."""

    async def scenario(world):
        world.stream.emit(1)
        world.stream.fail(EngineUnavailable("the engine is stopping"))
        told = await world.read()
        assert b"[1]" in told
        assert b"error" not in told
        assert (world.written, world.ending) == ([1], None)
        assert world.admission.sequences == 0

    run(scenario)


def test_a_gateway_that_drains_leaves_what_is_unread():
    """At once, without an end."""

    async def scenario(world):
        await world.source.aclose()
        world.stream.emit(1)
        await soon(lambda: world.written == [1])
        world.lifecycle.drain()
        async with asyncio.timeout(2):  # it is not waited for, though it is left only now
            await world.dispatcher.idle()
        await soon(lambda: not world.unread._going)
        assert world.ending is None
        assert world.frames.over

    run(scenario)


def test_an_engine_that_is_gone_is_no_end():
    """Its reader is told; who comes back goes on with another engine."""

    async def scenario(world):
        world.stream.emit(1)
        world.stream.fail(EngineDied("gone"))
        assert (await world.read()).endswith(b"error engine_died")
        assert (world.written, world.ending) == ([1], None)
        assert world.given_back

    run(scenario)


def test_a_failure_of_its_own_is_its_end():
    """Told to the reader, and to whoever comes back; also where nobody reads."""

    async def read(world):
        world.stream.emit(1)
        world.stream.fail(RequestQuarantined("engines die of it"))
        assert b"error " in await world.read()
        assert world.ending.status is Status.FAILED
        assert world.ending.error.message == "engines die of it"

    async def unread(world):
        await world.source.aclose()
        world.stream.fail(RequestQuarantined("engines die of it"))
        await soon(lambda: world.ending is not None)
        assert world.ending.status is Status.FAILED
        await soon(lambda: not world.unread._going)

    run(read)
    run(unread)


def test_a_reader_that_leaves_with_the_failure_does_not_hide_it():
    """It is not told as complete what broke off."""

    async def scenario(world):
        frames = world.source.frames()
        world.stream.emit(1)
        await anext(frames)
        world.stream.fail(RequestQuarantined("engines die of it"))
        await soon(lambda: world.frames.over)
        await frames.aclose()
        await world.source.aclose()
        assert world.ending.status is Status.FAILED

    run(scenario)


def test_what_somebody_else_has_is_let_go():
    """Its reader is told so, and nothing more is written or ended."""

    async def scenario(world):
        world.stream.emit(1)
        frames = world.source.frames()
        await anext(frames)
        await soon(lambda: world.written == [1])
        assert await world.journal.claim(NAME, 1)
        world.stream.emit(2)
        with pytest.raises(RequestTaken):
            async for _ in frames:
                pass
        assert world.source.fail(reply_for(RequestTaken("it"))) == b"error stream_taken"
        await world.source.aclose()
        assert (world.written, world.ending) == ([1], None)
        assert world.frames.call.outlives_reader

    run(scenario)
