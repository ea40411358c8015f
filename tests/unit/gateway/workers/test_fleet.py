"""Keeping replicas: the first makes ready, lost ones come back after a rest, refusals end it."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from engines.api import EngineInfo
from engines.errors import EngineUnavailable, ModelRejected
from engines.limits import Limits
from engines.wire.facts import WorkerFacts
from gateway.source import Watch
from gateway.workers.child import WorkerFailed
from gateway.workers.fleet import Fleet, Replica
from tests.support.fake_engine import FakeEngine
from tests.support.live import MODEL, TOKENIZER_DIR, test_settings

VOCAB = 2560  # what the bundled tokenizer has


class Hosted(FakeEngine):
    """A fake that also tells the facts of a worker."""

    def __init__(self, vocab_size=VOCAB, model=MODEL):
        super().__init__()
        info = EngineInfo(model, 1024, vocab_size, 16, 64, 8)
        limits = Limits(1024, 8, 64, 16, 64, vocab_size)
        self.facts = WorkerFacts(info, limits, "0", 1, kv_bytes=64 * 16 * 8)

    @property
    def info(self):
        return self.facts.info


class Cache:
    """Tells what is in the KV cache of a replica, once somebody listens."""

    kv_namespace = b"of a test"

    def __init__(self):
        self.listener = None

    def follow_kv(self, listener):
        assert self.listener is None
        self.listener = listener


class FakeLink:
    """A place whose replica comes and goes as a test says."""

    def __init__(self, name, outcomes=(), *, must_start=False):
        self.name = name
        self.must_start = must_start
        self.opened = 0
        self.closed = 0
        self._outcomes = list(outcomes)  # of the first openings: an error, or an engine
        self._gone = asyncio.Queue()

    async def open(self, report):
        self.opened += 1
        report(f"opening {self.name}")
        outcome = self._outcomes.pop(0) if self._outcomes else Hosted()
        if isinstance(outcome, Exception):
            raise outcome
        self.kv = Cache()
        return Replica(outcome, 4096, self.kv)

    async def lost(self):
        return await self._gone.get()

    async def close(self):
        self.closed += 1

    def lose(self, *, asked=False):
        self._gone.put_nowait(asked)


class Seen:
    """What a fleet tells, and how long it rests."""

    def __init__(self):
        self.phases, self.workers, self.refused, self.rests = [], [], [], []
        self.now = 0.0

    def watch(self):
        return Watch(
            self.phases.append, self.refused.append,
            lambda *counts: self.workers.append(counts), self.refused.append,
        )  # fmt: skip

    async def rest(self, seconds):
        self.rests.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def fleet(*links, **changes):
    seen = Seen()
    settings = test_settings(model_dir=TOKENIZER_DIR, **changes)
    made = Fleet(settings, links, chance=lambda: 0.0, clock=lambda: seen.now, rest=seen.rest)
    try:
        yield made, seen
    finally:
        await made.close()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0)


def test_the_first_replica_makes_ready():
    """The others may be late; one worker's phases are shown."""

    async def scenario():
        late = FakeLink("b", [EngineUnavailable("not yet")] * 3)
        async with fleet(FakeLink("a"), late) as (made, seen):
            opened = await made.open(seen.watch())
            assert opened.workers is made
            assert opened.model.name == MODEL
            assert str(opened.kv).startswith("64 blocks of 16 tokens")
            assert "context cut from 4096 to 1024" in str(opened.kv)
            await until(lambda: made.up == 2)
            assert seen.phases == ["opening a"]
            assert seen.workers[-1] == (2, 2)
            assert (made.total, made.restarts) == (2, 0)

    asyncio.run(scenario())


def test_a_lost_replica_comes_back_after_a_rest():
    """A longer one each time it has not lived long; what was lost is closed before."""

    async def scenario():
        link = FakeLink("a")
        async with fleet(link) as (made, seen):
            await made.open(seen.watch())
            for life, healthy_s in enumerate([0, 0, 0, 60], 1):
                seen.now += healthy_s
                link.lose()
                await until(lambda life=life: link.opened == life + 1 and made.up == 1)
            assert seen.rests == [0.5, 1.0, 2.0, 0.5]
            assert seen.workers == [(1, 1), *[(0, 1), (1, 1)] * 4]
            assert (made.restarts, link.closed) == (4, 4)

    asyncio.run(scenario())


def test_one_that_went_as_it_was_asked_to_comes_back_at_once():
    """An operator replaces workers one by one."""

    async def scenario():
        link = FakeLink("a")
        async with fleet(link) as (made, seen):
            await made.open(seen.watch())
            link.lose(asked=True)
            await until(lambda: link.opened == 2)
            assert seen.rests == [0]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        (lambda: FakeLink("a", [WorkerFailed("no weights")], must_start=True), WorkerFailed),
        (lambda: FakeLink("a", [EngineUnavailable("gone")], must_start=True), EngineUnavailable),
        (lambda: FakeLink("a", [Hosted(model="other")]), ModelRejected),
        (lambda: FakeLink("a", [Hosted(vocab_size=7)]), ModelRejected),
    ],
    ids=["fails", "ends", "another-model", "another-vocabulary"],
)
def test_what_can_never_be_is_told_at_once(link, kind):
    """A worker of ours that never was ready, and any that computes another model."""

    async def scenario():
        async with fleet(link()) as (made, seen):
            await made.open(seen.watch())

    with pytest.raises(kind):
        asyncio.run(scenario())


def test_a_second_worker_that_never_starts_ends_what_serves():
    """Fewer replicas than were asked for would be found out under load."""

    async def scenario():
        async with fleet(FakeLink("a"), FakeLink("b", must_start=True)) as (made, seen):
            gate = asyncio.Event()

            async def fail(report):
                await gate.wait()
                raise WorkerFailed("no memory")

            made._links[1].open = fail
            await made.open(seen.watch())
            gate.set()
            await until(lambda: seen.refused)
            assert str(seen.refused[0]) == "no memory"

    asyncio.run(scenario())


def test_a_known_worker_may_fail_to_come_back():
    """Then it is tried again, for ever."""

    async def scenario():
        link = FakeLink("a", [Hosted(), WorkerFailed("x"), Hosted(model="other")], must_start=True)
        async with fleet(link) as (made, seen):
            await made.open(seen.watch())
            link.lose()
            await until(lambda: link.opened == 4 and made.up == 1)
            assert not seen.refused
            assert made.restarts == 3

    asyncio.run(scenario())


def test_closing_closes_every_link_and_leaves_no_task():
    """Also while one is still opening."""

    async def scenario():
        never = FakeLink("b")
        never.open = lambda report: asyncio.Event().wait()
        async with fleet(FakeLink("a"), never) as (made, seen):
            await made.open(seen.watch())
        assert [link.closed for link in made._links] == [1, 1]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("routing", ["prefix", "least-loaded", "round-robin", "sticky"])
def test_caches_are_followed_by_those_who_route_by_them(routing):
    """From the second replica on, and anew for each that comes back; nobody else listens."""

    async def scenario():
        links = FakeLink("a"), FakeLink("b")
        gate = asyncio.Event()
        opening = links[1].open

        async def open_late(report):
            await gate.wait()
            return await opening(report)

        links[1].open = open_late
        async with fleet(*links, routing=routing) as (made, seen):
            await made.open(seen.watch())
            assert links[0].kv.listener is None
            gate.set()
            await until(lambda: made.up == 2)
            listens = routing == "prefix"
            assert [link.kv.listener is not None for link in links] == [listens] * 2
            before = links[0].kv
            links[0].lose()
            await until(lambda: links[0].opened == 2 and made.up == 2)
            assert links[0].kv is not before
            assert (links[0].kv.listener is not None) == listens
            assert made.placements.hits == 0

    asyncio.run(scenario())
