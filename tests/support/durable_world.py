"""A durable call over an engine by hand and a journal in memory."""

import asyncio
from dataclasses import replace

from engines.api import GenerationRequest, RequestId, Sampling
from gateway.admission import Admission
from gateway.dispatch import Dispatcher
from gateway.durable.journal import Owned, name_of
from gateway.durable.token_log import TokenLog, read_log
from gateway.durable.written import Writer, WrittenFrames
from gateway.exchange import Exchange
from gateway.metrics import Metrics
from tests.support.fake_engine import FakeEngine, fake_job
from tests.support.memory_journal import MemoryJournal

NAME = name_of(b"tenant", "call")


def request(n=1, name="call"):
    """A request of so many choices."""
    return GenerationRequest(RequestId(name), (1, 2, 3), Sampling(max_tokens=10_000), n=n)


class DurableWorld:
    """One call, its writer and its frames; `stream` is what the test speaks through."""

    def __init__(self, *requests, journal=None):
        self.engine, self.metrics = FakeEngine(), Metrics("test")
        self.admission = Admission(max_sequences=8, max_waiting_tokens=1000)
        self.dispatcher = Dispatcher(self.engine, self.admission, self.metrics, lambda: 0.0)
        self.journal = MemoryJournal() if journal is None else journal
        self.requests = requests or (request(),)
        self.exchange = Exchange("req-1", "POST", 0.0)

    async def begin(self):
        """Enter the call and start it; nothing is read yet."""
        self.writer = Writer(self.journal, Owned(NAME, b"record"), TokenLog())
        await self.writer.enter()
        job = self.writer.logged(replace(fake_job(*self.requests), id="call"))
        self.call = await self.dispatcher.start(job, self.exchange)
        self.stream = self.engine.streams[0]
        self.frames = WrittenFrames(self.call, self.writer)
        return self

    @property
    def written(self):
        """The tokens of the first choice that the journal has."""
        events = read_log(self.journal.entries[NAME].chunks, self.requests)[0]
        return events[0].tokens if events else []

    @property
    def given_back(self):
        """Whether admission and engine have all back."""
        return self.admission.sequences == 0 and all(each.closed for each in self.engine.streams)


async def soon(condition):
    """Wait for something that comes in the same loop, or by its timers."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - of anything
            await asyncio.sleep(0.001)


def others(before):
    """The tasks that were not there before, and go on."""
    return [task for task in asyncio.all_tasks() if task not in before and not task.done()]
