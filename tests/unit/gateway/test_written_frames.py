"""What is told of a durable call is written down before, whatever is read meanwhile."""

import asyncio
import gc

import pytest

from engines.errors import EngineDied
from gateway.durable import written
from gateway.durable.journal import Fenced
from gateway.replies import reply_for
from tests.support.durable_world import NAME, DurableWorld, others, soon
from tests.support.memory_journal import MemoryJournal


class SlowJournal(MemoryJournal):
    """Takes its time to write, so that more is read meanwhile."""

    async def append(self, name, fence, at, chunks):
        for _ in range(20):
            await asyncio.sleep(0)
        await super().append(name, fence, at, chunks)


def run(scenario, **world):
    async def begun():
        before = asyncio.all_tasks()
        await scenario(await DurableWorld(**world).begin())
        await asyncio.sleep(0)
        assert not others(before), "a task goes on"

    asyncio.run(asyncio.wait_for(begun(), 20))


def spelled(frames):
    """The tokens that frames tell."""
    tokens = []
    for frame in frames.decode().split(";"):
        if frame.startswith("0.0="):
            tokens += [int(token) for token in frame[5:-1].split(",") if token]
    return tokens


async def read(world, into):
    async for some in world.frames.frames():
        into += spelled(some)
    await world.frames.aclose()


def test_nothing_is_told_that_is_not_written():
    """While one chunk is on its way more is read, which waits for the next."""

    async def scenario(world):
        async def talk():
            for token in range(1, 61):
                world.stream.emit(token, finish="length" if token == 60 else None)
                await asyncio.sleep(0)

        talking, told = asyncio.create_task(talk()), []
        async for some in world.frames.frames():
            told += spelled(some)
            assert told == world.written[: len(told)]
        await talking
        assert told == world.written == list(range(1, 61))
        await world.frames.aclose()
        assert world.given_back

    run(scenario, journal=SlowJournal())


def test_the_first_token_is_told_at_once_and_others_together():
    """The first as soon as it is written; then eight, or those of a tenth of a second."""

    async def scenario(world):
        told = []
        reading = asyncio.create_task(read(world, told))
        world.stream.emit(1)
        began = asyncio.get_running_loop().time()
        await soon(lambda: told == [1])
        assert asyncio.get_running_loop().time() - began < written.GATHER_S
        world.stream.emit(2)
        world.stream.emit(3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert told == [1]
        await soon(lambda: told == [1, 2, 3])
        began = asyncio.get_running_loop().time()
        for token in range(4, 12):
            world.stream.emit(token)
        await soon(lambda: told[-1] == 11)
        assert asyncio.get_running_loop().time() - began < written.GATHER_S
        world.stream.emit(finish="stop")
        await reading
        assert len(world.journal.entries[NAME].chunks) == 4

    run(scenario)


def test_a_reader_that_takes_nothing_holds_little(monkeypatch):
    """What is told and not taken is bounded; the rest waits in the engine, and comes after."""
    monkeypatch.setattr(written, "_MOST_TOLD_BYTES", 100)

    async def scenario(world):
        frames = world.frames.frames()
        told = spelled(await anext(frames))
        for token in range(1, 1001):
            world.stream.emit(token)
            await asyncio.sleep(0)
        await asyncio.sleep(2 * written.GATHER_S)
        held = len(world.frames._held) + len(world.frames._writing)
        assert held <= written._MOST_HELD
        assert len(world.frames._told) < 2000
        world.stream.emit(finish="stop")
        async for some in frames:
            told += spelled(some)
        assert told == list(range(1, 1001))
        await world.frames.aclose()

    run(scenario)


def test_while_the_journal_is_away_all_is_told_and_written_later():
    """As any call; with the next that is written, all of it is there."""

    async def scenario(world):
        told = []
        world.journal.away = True
        reading = asyncio.create_task(read(world, told))
        world.stream.emit(1, 2, 3)
        await soon(lambda: told == [1, 2, 3])
        assert world.written == []
        world.journal.away = False
        await asyncio.sleep(written._AGAIN_S)
        world.stream.emit(4, finish="stop")
        await reading
        assert (told, world.written) == ([1, 2, 3, 4], [1, 2, 3, 4])

    run(scenario)


def test_who_is_fenced_tells_nothing_more():
    """Not even with the error: what it held back, the owner may tell otherwise."""

    async def scenario(world):
        told = []

        async def read_on():
            with pytest.raises(Fenced) as caught:
                await read(world, told)
            told.append(world.frames.fail(reply_for(caught.value)))

        reading = asyncio.create_task(read_on())
        world.stream.emit(1)
        await soon(lambda: told == [1])
        assert await world.journal.claim(NAME, 1)
        world.stream.emit(2)
        await reading
        *tokens, error = told
        assert (tokens, world.written) == ([1], [1])
        assert spelled(error) == []
        assert isinstance(world.frames.failure, Fenced)
        await world.frames.aclose()

    run(scenario)


def test_an_engine_that_fails_ends_it_after_all_it_said():
    """Everything is written and told before the error."""

    async def scenario(world):
        told = []

        async def read_on():
            with pytest.raises(EngineDied):
                await read(world, told)

        reading = asyncio.create_task(read_on())
        world.stream.emit(1, 2)
        world.stream.fail(EngineDied("gone"))
        await reading
        assert told == world.written == [1, 2]
        await world.frames.aclose()
        assert world.given_back

    run(scenario)


def test_without_a_reader_it_goes_on_to_its_end():
    """One that left in the middle, and one that never came."""

    async def in_the_middle(world):
        frames = world.frames.frames()
        world.stream.emit(1)
        await anext(frames)
        await frames.aclose()
        unread = asyncio.create_task(world.frames.unread())
        world.stream.emit(2, finish="stop")
        await unread
        assert (world.written, world.frames.over, world.frames._told) == ([1, 2], True, b"")
        await world.frames.aclose()
        assert world.given_back

    async def from_the_start(world):
        unread = asyncio.create_task(world.frames.unread())
        world.stream.emit(1, finish="stop")
        await unread
        assert world.written == [1]
        await world.frames.aclose()
        assert world.given_back

    run(in_the_middle)
    run(from_the_start)


def test_who_stops_it_has_what_was_held_back(caplog):
    """Nothing that was read is lost for who ends the call; no task is left, or destroyed."""

    async def scenario(world):
        frames = world.frames.frames()
        world.stream.emit(1)
        told = spelled(await anext(frames))
        while told != [1]:
            told += spelled(await anext(frames))
        world.stream.emit(2)
        await soon(lambda: world.frames._held)
        await world.frames.stop()
        await frames.aclose()
        assert spelled(world.frames.take()) == [2]
        assert world.frames.take() == b""
        await world.frames.stop()
        await world.frames.aclose()
        assert world.given_back

    run(scenario)
    gc.collect()
    assert "destroyed" not in caplog.text


def test_who_is_cut_short_in_closing_it_gives_all_back():
    """The engine's stream and the admission are not kept for a task that nobody waits for."""

    async def scenario(world):
        frames = world.frames.frames()
        await anext(frames)
        closing = asyncio.create_task(world.frames.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        assert world.given_back
        await frames.aclose()
        await world.frames.aclose()

    run(scenario)
