"""The writer of a durable call: what a journal loses is written again, and its failures end."""

import asyncio

import pytest

from engines.api import GenerationRequest, RequestId, Sampling, TokenEvent
from gateway.durable.journal import Fenced, JournalAway, Owned, name_of
from gateway.durable.token_log import TokenLog, read_log
from gateway.durable.written import Writer
from tests.support.memory_journal import MemoryJournal

NAME = name_of(b"tenant", "call")
REQUEST = GenerationRequest(RequestId("call"), (1, 2), Sampling(max_tokens=10_000))


class World:
    """A writer over a journal in memory, by a clock that moves when told."""

    def __init__(self, *, fence=1):
        self.now = 0.0
        self.journal, self.log = MemoryJournal(), TokenLog()
        owned = Owned(NAME, b"record", fence)
        self.writer = Writer(self.journal, owned, self.log, clock=lambda: self.now)

    def say(self, *tokens):
        self.log.add(0, TokenEvent(0, list(tokens), 0))

    @property
    def entry(self):
        return self.journal.entries[NAME]

    @property
    def written(self):
        events = read_log(self.entry.chunks, [REQUEST])[0]
        return events[0].tokens if events else []


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(World()), 10))


def test_a_call_that_is_lost_when_all_is_written_ends_all_the_same():
    """Its log is there again, and how it ended; nobody waits for ever."""

    async def scenario(world):
        await world.writer.enter()
        world.say(1, 2, 3)
        assert await world.writer.write()
        world.journal.empty()
        await world.writer.settle(b"end")
        assert (world.written, world.entry.ending) == ([1, 2, 3], b"end")

    run(scenario)


def test_an_end_that_was_refused_once_is_not_lost():
    """An answer that is lost changes nothing; what waits is written with the end."""

    async def scenario(world):
        await world.writer.enter()
        world.say(1)
        world.journal.loses_answer = True
        with pytest.raises(JournalAway):
            await world.writer.end(b"end", 60)
        with pytest.raises(JournalAway):  # it is not asked again at once
            await world.writer.end(b"end", 60)
        world.now += 1
        world.say(2)
        await world.writer.end(b"end", 60)
        assert (world.written, world.entry.ending) == ([1, 2], b"end")

    run(scenario)


def test_a_gap_waits_for_a_journal_that_is_away():
    """Whoever goes on from the log alone goes on; the gap is there before any token behind it."""

    async def scenario(world):
        await world.writer.enter()
        world.say(1, 2)
        await world.writer.write()
        world.journal.away = True
        await world.writer.gap()
        assert world.entry.gaps == ()
        world.say(3)
        assert not await world.writer.write()
        world.journal.away, world.now = False, 1.0
        assert await world.writer.write()
        assert (world.written, world.entry.gaps) == ([1, 2, 3], (2,))

    run(scenario)


def test_a_gap_outlives_a_journal_that_is_emptied():
    """Also where it is emptied at that very moment."""

    async def scenario(world):
        await world.writer.enter()
        world.say(1, 2)
        await world.writer.write()
        world.journal.empty()
        await world.writer.gap()
        assert (world.written, world.entry.gaps) == ([1, 2], (2,))
        world.journal.empty()
        world.say(3)
        assert await world.writer.write()
        assert (world.written, world.entry.gaps) == ([1, 2, 3], (2,))

    run(scenario)


def test_an_owner_that_was_is_told_so_by_all_it_does():
    """Fenced, and nothing else; what the next one has is untouched."""

    async def scenario(world):
        await world.writer.enter()
        assert await world.journal.claim(NAME, 1)
        world.say(1)
        for late in (
            world.writer.write, world.writer.gap, world.writer.enter,
            lambda: world.writer.end(b"end", 60), lambda: world.writer.settle(b"end"),
        ):  # fmt: skip
            with pytest.raises(Fenced):
                await late()
        assert (world.written, world.entry.gaps, world.entry.ending) == ([], (), b"")

    run(scenario)
