"""The log of a durable call under owners that come, hang and go, and a journal that fails.

I14: of all owners, at each time one writes. I15: what a reader was told is what every later reader
is told at that place, or it is told that this is not known any more.

An owner is the real Writer over the real TokenLog. Each that goes on from the log draws other
tokens than those before it would have, so whatever two of them tell must come from the log.
"""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from engines.api import GenerationRequest, RequestId, Sampling, TokenEvent
from gateway.durable.journal import Fenced, Owned, name_of, read_whole
from gateway.durable.token_log import TokenLog, read_log
from gateway.durable.written import Writer
from tests.support.memory_journal import MemoryJournal

NAME = name_of(b"tenant", "call")
REQUEST = GenerationRequest(RequestId("call"), (1, 2), Sampling(max_tokens=10_000))


class Owner:
    """A gateway that believes to have the call."""

    def __init__(self, machine, number, chunks, fence):
        self.number = number
        self.log = TokenLog(chunks)
        known = logged(chunks)
        self.tokens = list(known)
        self.told = list(known)  # what its readers have
        self.writer = machine.writer_of(
            machine.journal, Owned(NAME, b"record", fence), self.log, clock=lambda: machine.now
        )
        if known:
            self.log.add(0, TokenEvent(0, list(known), 0))  # told again to a new renderer

    def generate(self, count):
        start = len(self.tokens)
        new = [self.number * 1000 + start + step for step in range(count)]
        self.tokens += new
        self.log.add(0, TokenEvent(0, new, 0))


def logged(chunks):
    events = read_log(chunks, [REQUEST])[0]
    return events[0].tokens if events else []


class JournalMachine(RuleBasedStateMachine):
    """One call, its owners, its readers."""

    writer_of = Writer

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.journal = MemoryJournal()
        self.now = 0.0
        self.numbers = 1
        self.owners = []
        self.known = []  # the longest that any reader was told while it was written
        self.emptied = False  # and not written anew since
        first = Owner(self, 1, [], 1)
        self.run(first.writer.enter())
        self.owners.append(first)

    def run(self, what):
        return self.runner.run(what)

    def teardown(self):
        self.runner.close()

    @rule(index=st.integers(0, 9), count=st.integers(1, 5))
    @precondition(lambda self: self.owners)
    def generate(self, index, count):
        """Some owner, which may be a late one, gets tokens."""
        self.owners[index % len(self.owners)].generate(count)

    @rule(index=st.integers(0, 9))
    @precondition(lambda self: self.owners)
    def write(self, index):
        """An owner writes, and tells what is written; a fenced one tells nothing more, ever."""
        owner = self.owners[index % len(self.owners)]
        self.now += 1.0
        tokens = list(owner.tokens)
        try:
            written = self.run(owner.writer.write())
        except Fenced:
            self.owners.remove(owner)
            return
        if written:
            owner.told = tokens
            entry = self.journal.entries.get(NAME)  # none, where there was nothing new to write
            self.emptied &= entry is None or logged(entry.chunks) != tokens
            shorter = min(len(self.known), len(tokens))
            assert tokens[:shorter] == self.known[:shorter]
            self.known = max(self.known, tokens, key=len)

    @rule()
    def claim(self):
        """Another gateway goes on from the log."""
        if self.journal.away:
            return
        self.journal.loses_answer = False
        entry = self.run(self.journal.read(NAME))
        if entry is None or not self.run(self.journal.claim(NAME, entry.fence)):
            return
        whole = self.run(read_whole(self.journal, NAME))
        if len(logged(whole.chunks)) < len(self.known):
            assert self.emptied  # its owner died before it had written all of it once more
            self.known = logged(whole.chunks)  # who has more is told that it is lost
        self.numbers += 1
        self.owners.append(Owner(self, self.numbers, whole.chunks, whole.fence))

    @rule()
    @precondition(lambda self: len(self.owners) > 1)
    def die(self):
        """The first of the owners is gone: the last is the one who goes on."""
        self.owners.pop(0)

    @rule(away=st.booleans())
    def go(self, away):
        """The journal goes, or comes back."""
        self.journal.away = away

    @rule()
    def lose_an_answer(self):
        """The next call is done, and nobody hears of it."""
        self.journal.loses_answer = True

    @rule()
    @precondition(lambda self: len(self.owners) == 1)
    def empty(self):
        """The journal loses all, while nobody hangs who had the call before."""
        self.journal.empty()
        self.emptied = True

    @invariant()
    def one_owner_writes(self):
        """I14: what is there is a beginning of what its owner has."""
        entry = self.journal.entries.get(NAME)
        if entry is None:
            return
        tokens = logged(entry.chunks)
        fence = self.journal.fences[NAME]
        for owner in self.owners:
            if owner.writer.fence == fence:
                assert tokens == owner.tokens[: len(tokens)]

    @invariant()
    def nothing_is_told_otherwise(self):
        """I15: the log has what was told of it, unless it was emptied and is being written anew."""
        entry = self.journal.entries.get(NAME)
        if entry is not None:
            tokens = logged(entry.chunks)
            shorter = min(len(tokens), len(self.known))
            assert tokens[:shorter] == self.known[:shorter]


class Unfenced(Writer):
    """Enters a call again whoever has it."""

    async def write(self):
        try:
            return await super().write()
        except Fenced:
            self._journal.fences[NAME] = self.fence
            return await super().write()


class Hasty(Writer):
    """Takes an answer that was lost for a refusal, and writes the chunk again behind it."""

    async def _append(self):
        for chunk in self.log.chunks[self._written :]:
            have = len(self._journal.entries[NAME].chunks) if not self._journal.away else 0
            await self._journal.append(self.name, self.fence, have, [chunk])
            self._written += 1


class Careless(Writer):
    """Says that all is written where the journal is away."""

    async def write(self):
        await super().write()
        return True


def hunt(writer, examples):
    machine = type("Machine", (JournalMachine,), {"writer_of": writer})
    how = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(machine, settings=how)


def test_a_log_has_one_truth():
    """Whatever fails, and whoever believes to have the call."""
    hunt(Writer, 250)


@pytest.mark.parametrize("mutant", [Unfenced, Hasty, Careless])
def test_a_writer_that_is_wrong_is_found(mutant):
    """So the machine can see what it is there for."""
    with pytest.raises((AssertionError, KeyError)):
        hunt(mutant, 2000)
