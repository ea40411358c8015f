"""Responses in the background and who takes care of them: no end of a gateway is one of theirs."""

import asyncio
import json
from dataclasses import replace

import pytest

from engines.replicas import ReplicaSet
from gateway.admission import Admission
from gateway.auth import Caller
from gateway.dispatch import Dispatcher
from gateway.durable import going_on
from gateway.durable.journal import Fenced, JournalAway, name_of
from gateway.durable.record import RunRecord
from gateway.durable.responses import Durable, WrittenResponses
from gateway.exchange import Exchange
from gateway.lifecycle import Lifecycle, Serving
from gateway.metrics import Metrics
from gateway.responses import custody, following
from gateway.responses.custody import Custodian
from gateway.responses.parts import ResponseParts
from gateway.responses.runs import Runs
from gateway.responses.service import Responses
from gateway.responses.store import MemoryResponseStore
from openai_compat.errors import NotFound, Overloaded, Unavailable
from openai_compat.responses.query import Page, Retrieval
from openai_compat.responses.stored import Key, no_previous
from tests.support.durable_world import soon
from tests.support.kept_worker import KeptWorker
from tests.support.memory_journal import MemoryJournal, MemoryLeases
from tests.support.messages import events_of
from tests.support.responses import response
from tests.support.tokenizers import CALL

TENANT = b"tenant"
KEY = Key(TENANT, "resp_call1")
NAME = name_of(TENANT, KEY.id)
TOKENS = 12


class Gateway:
    """One gateway of a world: what runs there, its store, and its custodian."""

    def __init__(self, world):
        self.world = world
        self.replicas = ReplicaSet()
        self.replicas.add("one", world.worker)
        self.metrics, self.lifecycle = Metrics("test"), Lifecycle()
        self.admission = Admission(max_sequences=8, max_waiting_tokens=1000)
        self.dispatcher = Dispatcher(self.replicas, self.admission, self.metrics, lambda: 0.0)
        self.lifecycle.ready(Serving(self.replicas, {}, self.dispatcher, None, None, self.replicas))
        self.store = MemoryResponseStore(max_bytes=1 << 20, ttl_s=100, clock=lambda: 0.0)
        self.runs = Runs(self.metrics, lambda: 0.0, world.leases)
        self.written = WrittenResponses(Durable(world.journal, world.leases), self.relower)
        self.responses = Responses(self.store, self.runs, keeps=True, written=self.written)
        self.custodian = Custodian(
            self.runs, self.store, self.lifecycle, self.metrics, self.written, self.responses.take
        )
        self.may_relower = asyncio.Event()
        self.may_relower.set()

    async def relower(self, record):
        await self.may_relower.wait()
        if self.world.previous_is_gone:
            raise no_previous()
        fields = json.loads(record.body)
        fields.pop("previous_response_id", None)  # of it nothing is asked here
        return response(call=replace(CALL, id=record.stem), **fields)

    async def begin(self, **more):
        fields = {"background": True, "max_output_tokens": TOKENS, **more}
        asked = response(call=replace(CALL, id="call1"), **fields)
        body = json.dumps({**fields, "previous_response_id": "resp_before"}).encode()
        caller = Caller(TENANT)
        record = RunRecord("call1", CALL.now, CALL.seed, caller, asked.renderer.body(), body)
        exchange = Exchange("req-1", "POST", 0.0, caller=caller)
        return await self.responses.background(asked, record, exchange, self.dispatcher.start)

    async def status(self):
        return json.loads(await self.responses.body(KEY))["status"]

    async def follow(self, after=-1):
        source = await self.responses.follow(
            KEY, Retrieval(stream=True, after=after, obfuscated=None)
        )
        return await read(source)


class World:
    """Two gateways, one worker, one journal."""

    def __init__(self):
        self.journal, self.leases, self.worker = MemoryJournal(), MemoryLeases(), KeptWorker()
        self.previous_is_gone = False
        self.one, self.two = Gateway(self), Gateway(self)
        self.looking = {}

    def look(self, gateway):
        self.looking[gateway] = asyncio.create_task(gateway.custodian.run())

    async def kill(self, gateway):
        """End all it does at once, as far as others can see it."""
        looking = self.looking.pop(gateway, None)
        for task in [looking, *(task for _, task in gateway.runs._runs.values())]:
            if task is not None:
                gateway.runs._ended = lambda *_: None
                task.cancel()
        for run, _ in gateway.runs._runs.values():
            run.leave()

    async def close(self):
        for looking in self.looking.values():
            looking.cancel()
        await asyncio.gather(*self.looking.values(), return_exceptions=True)
        for gateway in (self.one, self.two):
            await gateway.responses.close()

    @property
    def entry(self):
        return self.journal.entries[NAME]


async def read(source):
    told = b""
    async for some in source.frames():
        told += some
    return events_of(told)


def run(scenario):
    async def begun():
        world = World()
        try:
            await scenario(world)
        finally:
            await world.close()

    asyncio.run(asyncio.wait_for(begun(), 20))


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch):
    monkeypatch.setattr(custody, "_LOOK_S", 0.01)
    monkeypatch.setattr(custody, "_QUIET_S", 0.3)
    monkeypatch.setattr(following, "_LOOK_S", 0.005)
    monkeypatch.setattr(going_on, "_LOOK_S", 0.005)


def texts(events):
    return [
        (event["type"], event["sequence_number"], event.get("delta"))
        for event in events
    ]  # fmt: skip


async def control():
    """The events of the response while nothing happens."""
    world = World()
    world.worker.says = TOKENS
    follower = await world.one.begin()
    events = texts(await read(follower))
    await world.close()
    return events


def test_what_is_released_is_adopted_from_its_worker():
    """Not a token is computed again, and the events have the same numbers anywhere."""

    async def scenario(world):
        whole = await control()
        follower = await world.one.begin()
        world.worker.says = 5
        await soon(lambda: len(world.entry.chunks) > 0)
        reading = asyncio.create_task(read(follower))
        world.one.lifecycle.drain()
        world.look(world.one)
        world.look(world.two)
        await soon(lambda: world.two.runs.get(KEY) is not None)
        world.worker.says = TOKENS
        assert texts(await reading) == whole
        await soon(lambda: world.entry.ending)
        assert texts(await world.two.follow(7)) == whole[8:]
        assert await world.two.status() == "incomplete"
        assert len(world.worker.generated) == 1
        assert world.one.admission.sequences <= 1  # it lingers, for who might come back to it
        assert world.two.admission.sequences == 0
        await soon(lambda: NAME not in world.leases.ends)

    run(scenario)


def test_what_no_worker_has_goes_on_from_its_log():
    """What was told is told; what is new has numbers that nobody can have been told."""

    async def scenario(world):
        await world.one.begin()
        world.worker.says = 5
        await soon(lambda: len(world.entry.chunks) > 0)
        await asyncio.sleep(0.15)
        before = texts(await first(await elsewhere(world.one), 8))
        await world.kill(world.one)
        world.worker.keeps, world.worker.says = False, TOKENS
        world.look(world.two)
        await soon(lambda: world.journal.entries[NAME].ending)
        events = await world.two.follow()
        assert texts(events)[:8] == before
        numbers = [event["sequence_number"] for event in events]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] > following.LOST_NUMBERS
        assert world.entry.gaps == (5,)
        emitted = world.worker.generated[-1].emitted[0]
        assert len(emitted) == 5

    run(scenario)


async def elsewhere(gateway):
    return gateway.responses._elsewhere(KEY, -1)


async def first(source, count):
    events = []
    frames = source.frames()
    while len(events) < count:
        events += events_of(await anext(frames))
    await frames.aclose()
    return events[:count]


def test_what_is_owned_is_not_adopted_while_another_adopts_slowly():
    """Leases are kept while something large is made again."""

    async def scenario(world):
        await world.one.begin()
        world.look(world.one)
        stranger = name_of(b"other", "resp_other")
        await world.journal.begin(stranger, world.entry.record, 1)
        world.leases.ends[stranger] = 0.0
        world.one.may_relower.clear()
        await soon(lambda: world.journal.fences[stranger] == 2)
        for name in (NAME, stranger):
            for _ in range(2):
                kept_until = world.leases.ends[name]
                await soon(lambda name=name, before=kept_until: world.leases.ends[name] > before)
        world.one.may_relower.set()

    run(scenario)


def test_a_wish_of_anybody_cancels_it():
    """What it had said is in it; whoever asked has its end."""

    async def scenario(world):
        await world.one.begin()
        world.worker.says = 5
        await soon(lambda: len(world.entry.chunks) > 0)
        world.look(world.one)
        await world.two.written.cancel(KEY)
        assert json.loads(world.entry.ending)["status"] == "cancelled"
        assert await world.one.status() == "cancelled"
        await soon(lambda: NAME not in world.leases.ends)
        assert world.leases.wishes == set()

    run(scenario)


def test_a_wish_for_one_whose_gateway_is_gone_keeps_what_it_said():
    """Adopted, told again, and only then cancelled."""

    async def scenario(world):
        await world.one.begin()
        world.worker.says = 5
        await soon(lambda: len(world.entry.chunks) > 0)
        await asyncio.sleep(0.15)
        await world.kill(world.one)
        world.look(world.two)
        await world.two.written.cancel(KEY)
        body = json.loads(await world.two.responses.body(KEY))
        assert body["status"] == "cancelled"
        assert body["usage"]["output_tokens"] == 5
        assert (await world.two.follow())[-1]["code"] == "response_cancelled"

    run(scenario)


def test_what_cannot_be_made_again_fails_and_says_why():
    """The response that it continued was deleted, and its gateway is gone."""

    async def scenario(world):
        await world.one.begin()
        world.previous_is_gone = True
        assert await world.two.status() == "queued"
        await world.kill(world.one)
        world.look(world.two)
        await soon(lambda: world.entry.ending)
        body = json.loads(await world.two.responses.body(KEY))
        assert body["status"] == "failed"
        assert "previous response" in body["error"]["message"]
        await soon(lambda: NAME not in world.leases.ends)

    run(scenario)


def test_one_that_cannot_be_made_again_is_seen_and_ended_anywhere():
    """While it runs: fetched, cancelled and deleted; only its items need what is gone."""

    async def scenario(world):
        await world.one.begin(stream_options={"include_obfuscation": True}, stream=True)
        world.look(world.one)
        world.previous_is_gone = True
        assert await world.two.status() == "queued"
        found = await world.two.written.found(KEY)
        assert (found.previous, found.obfuscated) == ("resp_before", True)
        with pytest.raises(NotFound):
            await world.two.responses.input_items(KEY, Page(100, newest_first=False, after=None))
        await world.two.responses.delete(KEY)
        assert NAME not in world.journal.entries
        await soon(lambda: not world.one.runs.written)

    run(scenario)


def test_a_log_that_cannot_be_read_ends_it():
    """It does not come back to every gateway for ever."""

    async def scenario(world):
        await world.one.begin()
        await world.journal.append(NAME, 1, 0, [b"\xff\xff\xff"])
        await world.kill(world.one)
        world.look(world.two)
        await soon(lambda: world.entry.ending)
        assert await world.two.status() == "failed"

    run(scenario)


@pytest.mark.parametrize("cancelled", [True, False])
def test_what_has_ended_is_not_begun_again(monkeypatch, cancelled):
    """Its gateway died when the store had its end, and the journal had not."""

    async def scenario(world):
        async def dies(*_):
            await asyncio.Event().wait()

        monkeypatch.setattr(world.journal, "end", dies)
        await world.one.begin()
        world.worker.says = 3 if cancelled else TOKENS
        await soon(lambda: len(world.entry.chunks) > 0)
        if cancelled:
            await world.one.responses.cancel(KEY)
        await soon(lambda: not world.one.runs.written)
        told = await world.one.responses.body(KEY)
        await world.two.store.put(await world.one.store.get(KEY))  # theirs is one store
        world.look(world.two)
        await soon(lambda: NAME not in world.leases.ends)
        assert NAME not in world.journal.entries
        assert await world.two.responses.body(KEY) == told
        assert json.loads(told)["status"] == ("cancelled" if cancelled else "incomplete")
        assert len(world.worker.generated) == 1

    run(scenario)


def test_who_adopts_is_quiet_after_the_journal_was_away():
    """Whoever is alive renews first."""

    async def scenario(world):
        await world.one.begin()
        world.leases.away = True
        world.look(world.one)
        world.look(world.two)
        await asyncio.sleep(0.2)
        world.leases.away = False
        await asyncio.sleep(0.2)
        assert world.journal.fences[NAME] == 1
        assert world.two.runs.get(KEY) is None

    run(scenario)


def test_a_refused_response_is_not_generated_later():
    """Its client was told that it did not begin: when the journal is back it is forgotten."""

    async def scenario(world):
        world.journal.loses_answer = True
        with pytest.raises(Unavailable):
            await world.one.begin()
        world.look(world.one)
        world.look(world.two)
        await soon(lambda: NAME not in world.journal.entries and NAME not in world.leases.ends)
        assert world.worker.generated == []

    async def overloaded(world):
        world.one.admission.resize(1)
        ticket = world.one.dispatcher.enter(1, 1)
        world.journal.begin = begin_then_go(world.journal)
        with pytest.raises(Overloaded):
            await world.one.begin()
        world.journal.away = False
        world.one.dispatcher.release(ticket)
        world.look(world.one)
        await soon(lambda: NAME not in world.journal.entries and NAME not in world.leases.ends)
        assert world.worker.generated == []

    run(scenario)
    run(overloaded)


def begin_then_go(journal):
    begin = journal.begin

    async def begun(*args):
        await begin(*args)
        journal.away = True

    return begun


def test_a_process_that_ends_without_a_drain_leaves_them():
    """A second signal is no wish of their clients."""

    async def scenario(world):
        await world.one.begin()
        world.worker.says = 5
        await soon(lambda: len(world.entry.chunks) > 0)
        parts = ResponseParts(world.one.responses, None, world.one.custodian)
        async with parts.at_work():
            pass
        assert world.entry.ending == b""
        world.look(world.two)
        world.worker.says = TOKENS
        await soon(lambda: world.entry.ending)
        assert await world.two.status() == "incomplete"

    run(scenario)


def test_an_engine_that_stops_is_no_end_of_what_is_written():
    """The time of a drain was over before anybody looked."""

    async def scenario(world):
        await world.one.begin()
        world.worker.says = 5
        await soon(lambda: len(world.entry.chunks) > 0)
        await world.one.replicas.stop(0)
        world.worker.stopped = True
        await soon(lambda: world.one.runs.get(KEY) is None)
        assert world.entry.ending == b""
        assert await world.one.store.get(KEY) is None

    run(scenario)


def test_one_that_is_left_before_it_began_gives_all_back():
    """Its task had no turn yet."""

    async def scenario(world):
        await world.one.begin()
        await world.one.runs.leave(KEY)
        assert world.one.runs.get(KEY) is None
        assert await world.one.store.get(KEY) is None
        await world.one.dispatcher.idle()
        assert world.one.admission.sequences == 0

    run(scenario)


def test_a_drain_waits_for_none_that_is_left():
    """Those that are left after it began are no more its own than those before."""

    async def scenario(world):
        await world.one.begin()
        world.worker.says = 5
        await soon(lambda: len(world.entry.chunks) > 0)
        world.look(world.one)
        world.one.lifecycle.drain()
        async with asyncio.timeout(2):
            await world.one.dispatcher.idle()
        await soon(lambda: world.one.runs.get(KEY) is None)

    run(scenario)


def test_one_that_is_being_cancelled_is_not_left():
    """Its client was told so: that is how it ends."""

    async def scenario(world):
        await world.one.begin()
        world.worker.says = 5
        await soon(lambda: len(world.entry.chunks) > 0)
        cancelling = asyncio.create_task(world.one.runs.cancel(KEY))
        await asyncio.sleep(0)
        await world.one.custodian.leave_all()
        await cancelling
        await soon(lambda: world.entry.ending)
        assert json.loads(world.entry.ending)["status"] == "cancelled"

    run(scenario)


def test_one_that_is_deleted_as_it_ends_leaves_nothing():
    """Neither an end that is written for ever, nor a lease."""

    async def scenario(world):
        await world.one.begin()
        await world.one.responses.delete(KEY)
        await asyncio.sleep(0)
        assert world.one.runs.ending == []
        assert NAME not in world.journal.entries
        assert NAME not in world.leases.ends

    run(scenario)


def test_who_is_fenced_leaves_it_to_the_other():
    """It tells nothing more, and its followers are led on."""

    async def scenario(world):
        whole = await control()
        follower = await world.one.begin()
        reading = asyncio.create_task(read(follower))
        world.worker.says = 3
        await soon(lambda: len(world.entry.chunks) > 0)
        world.leases.ends[NAME] = 0.0
        world.look(world.two)
        await soon(lambda: world.two.runs.get(KEY) is not None)
        world.worker.says = TOKENS
        assert texts(await reading) == whole
        await soon(lambda: world.one.runs.get(KEY) is None)
        with pytest.raises(Fenced):
            await world.journal.append(NAME, 1, 0, [b"x"])

    run(scenario)


def test_a_follower_elsewhere_outlasts_an_emptied_journal(monkeypatch):
    """Until its owner has written it once more; one that is deleted is gone."""
    monkeypatch.setattr(following, "_MISSED_S", 0.5)

    async def scenario(world):
        whole = await control()
        await world.one.begin()
        world.look(world.one)
        world.worker.says = 3
        await soon(lambda: len(world.entry.chunks) > 0)
        reading = asyncio.create_task(world.two.follow())
        await asyncio.sleep(0.02)
        world.journal.empty()
        await asyncio.sleep(0.02)
        world.worker.says = TOKENS
        assert texts(await reading) == whole

    async def deleted(world):
        await world.one.begin()
        world.look(world.one)
        reading = asyncio.create_task(world.two.follow())
        await asyncio.sleep(0.02)
        await world.one.responses.delete(KEY)
        with pytest.raises(NotFound):
            await reading

    run(scenario)
    run(deleted)


def test_a_follower_of_one_that_is_deleted_is_told_so(monkeypatch):
    """In a stream of its own numbers."""
    monkeypatch.setattr(following, "_MISSED_S", 0.05)

    async def scenario(world):
        follower = await world.one.begin()
        frames = follower.frames()
        told = events_of(await anext(frames))
        await world.one.responses.delete(KEY)

        async def read_on():
            async for some in frames:
                told.extend(events_of(some))

        with pytest.raises(NotFound) as caught:
            await read_on()
        (error,) = events_of(follower.fail(caught.value.reply))
        assert (error["sequence_number"], error["code"]) == (len(told), "response_not_found")

    run(scenario)


def test_one_that_ends_between_two_looks_is_found():
    """Of the store, then of the journal: it is in one of them at any moment."""

    async def scenario(world):
        world.worker.says = TOKENS
        follower = await world.one.begin()
        await read(follower)
        await soon(lambda: world.entry.ending)
        get = world.one.store.get
        looks = []

        async def late(key):
            looks.append(key)
            return None if len(looks) == 1 else await get(key)

        world.one.store.get = late
        assert await world.one.status() == "incomplete"

    run(scenario)


def test_while_the_journal_is_away_followers_elsewhere_are_told():
    """503 with a time to come back."""

    async def scenario(world):
        await world.one.begin()
        world.journal.away = True
        with pytest.raises(Unavailable) as caught:
            await world.two.follow()
        assert caught.value.reply.code == "store_unavailable"
        assert caught.value.reply.retry_after_s
        with pytest.raises(JournalAway):
            await world.journal.read(NAME)

    run(scenario)
