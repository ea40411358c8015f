"""What is told of a durable call is written down before, whatever is read meanwhile."""

import asyncio

from engines.api import GenerationRequest, RequestId, Sampling, TokenEvent
from gateway.durable.journal import Owned, name_of
from gateway.durable.token_log import TokenLog, read_log
from gateway.durable.written import Writer, WrittenFrames
from tests.support.memory_journal import MemoryJournal

NAME = name_of(b"tenant", "call")
REQUEST = GenerationRequest(RequestId("call"), (1, 2), Sampling(max_tokens=10_000))


class SlowJournal(MemoryJournal):
    """Takes its time to write, so that more is read meanwhile."""

    async def append(self, name, fence, at, chunks):
        for _ in range(20):
            await asyncio.sleep(0)
        await super().append(name, fence, at, chunks)


class Talker:
    """A call of which each frame has one token."""

    def __init__(self, log, tokens):
        self._log = log
        self._tokens = tokens

    async def frames(self):
        for token in range(self._tokens):
            self._log.add(0, TokenEvent(0, [token], 0))
            yield b"data: %d\n\n" % token
            await asyncio.sleep(0)

    async def aclose(self):
        pass


def written(journal):
    events = read_log(journal.entries[NAME].chunks, [REQUEST])[0]
    return events[0].tokens if events else []


def test_nothing_is_told_that_is_not_written():
    """While one chunk is on its way more is read, which waits for the next."""

    async def scenario():
        journal, log = SlowJournal(), TokenLog()
        writer = Writer(journal, Owned(NAME, b"record"), log)
        await writer.enter()
        told = []
        async for some in WrittenFrames(Talker(log, 60), writer).frames():
            told += [int(line[6:]) for line in some.decode().split("\n\n")[:-1]]
            assert told == written(journal)[: len(told)]
        assert told == written(journal) == list(range(60))

    asyncio.run(asyncio.wait_for(scenario(), 20))
