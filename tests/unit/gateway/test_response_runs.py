"""Responses over a hand-driven engine: every end is kept, told to followers, and gives all back."""

import asyncio
import json
from dataclasses import replace

import pytest

from engines.errors import EngineDied
from gateway.admission import Admission
from gateway.auth import Caller
from gateway.dispatch import Dispatcher
from gateway.durable.record import RunRecord
from gateway.exchange import Exchange
from gateway.metrics import Metrics
from gateway.responses.following import Follower
from gateway.responses.recollection import Recollection
from gateway.responses.runs import Runs
from gateway.responses.service import Responses
from gateway.responses.store import MemoryResponseStore
from openai_compat.errors import NotFound, Overloaded, RequestRejected
from openai_compat.responses.query import Page, Retrieval
from openai_compat.responses.stored import Key, referred_ids
from tests.support.fake_engine import FakeEngine
from tests.support.messages import events_of, ids
from tests.support.responses import kept, response
from tests.support.tokenizers import CALL, EOS

TENANT = b"tenant"
PAGE = Page(100, newest_first=False, after=None)
HELLO = ids("hello")[0]


class World:
    """Responses over a fake engine."""

    def __init__(self, max_bytes=1 << 20):
        self.now = 0.0
        clock = lambda: self.now  # noqa: E731
        self.engine = FakeEngine()
        self.metrics = Metrics("test")
        self.admission = Admission(max_sequences=8, max_waiting_tokens=1000)
        self.dispatcher = Dispatcher(self.engine, self.admission, self.metrics, clock)
        self.store = MemoryResponseStore(max_bytes=max_bytes, ttl_s=100, clock=clock)
        self.runs = Runs(self.metrics, clock)
        self.responses = Responses(self.store, self.runs, keeps=True)
        self.recollection = Recollection(self.store)
        self.made = 0

    def asked(self, **fields):
        self.made += 1
        return response(call=replace(CALL, id=f"call{self.made}"), **fields)

    def exchange(self):
        return Exchange("req-1", "POST", self.now, caller=Caller(TENANT))

    async def background(self, **fields):
        asked = self.asked(background=True, **fields)
        exchange = self.exchange()
        record = RunRecord(f"call{self.made}", 0, 0, exchange.caller, b"{}", b"{}")
        start = self.dispatcher.start
        follower = await self.responses.background(asked, record, exchange, start)
        return follower, self.engine.streams[-1]

    async def foreground(self, **fields):
        asked = self.asked(**fields)
        call = await self.responses.foreground(asked, self.exchange(), self.dispatcher.start)
        return call, self.engine.streams[-1]

    async def status(self, name="resp_call1"):
        stored = await self.store.get(Key(TENANT, name))
        return None if stored is None else stored.status.value

    def given_back(self):
        return (self.admission.sequences, [s.closed for s in self.engine.streams]) == (
            0,
            [True] * len(self.engine.streams),
        )


class SlowClose:
    """Lets a stream take a while to be closed."""

    def __init__(self, stream):
        self.finished = False
        self._close, stream.aclose = stream.aclose, self.aclose

    async def aclose(self):
        await asyncio.sleep(0.1)
        self.finished = True
        await self._close()


def run(scenario, **world):
    return asyncio.run(asyncio.wait_for(scenario(World(**world)), 20))


async def read(source):
    return [event["type"] async for some in source.frames() for event in events_of(some)]


def retrieval(after, obfuscated):
    return Retrieval(stream=True, after=after, obfuscated=obfuscated)


async def soon(condition):
    while not condition():  # noqa: ASYNC110 - of anything, in the same loop
        await asyncio.sleep(0)


def end(stream):
    stream.emit(HELLO)
    stream.emit(ids(EOS)[0], finish="stop")


def test_every_follower_reads_the_same_from_any_place():
    """Those there from the start, those who come in the middle, and those long after."""

    async def scenario(world):
        first, stream = await world.background()
        reading = asyncio.create_task(read(first))
        stream.emit(HELLO)
        await soon(lambda: len(world.store._live) and len(first_events(world)) > 4)
        middle = [
            asyncio.create_task(read(Follower(first.key, after, world.store, world.runs)))
            for after in range(-1, 5)
        ]
        end(stream)
        whole = await reading
        assert whole[0] == "response.created"
        assert whole[-1] == "response.incomplete" or whole[-1] == "response.completed"
        for after, task in enumerate(middle, start=-1):
            assert await task == whole[after + 1 :]
        for after in range(-1, len(whole)):
            if after < len(whole):
                late = Follower(first.key, after, world.store, world.runs)
                assert await read(late) == whole[after + 1 :]
        assert await world.status() == "completed"
        assert world.given_back()

    run(scenario)


def first_events(world):
    return next(iter(world.store._live.values())).log


def test_a_follower_who_leaves_changes_nothing():
    """The run goes on."""

    async def scenario(world):
        follower, stream = await world.background()
        await follower.aclose()
        end(stream)
        await soon(lambda: world.runs.get(follower.key) is None)
        assert await world.status() == "completed"

    run(scenario)


def test_a_dead_engine_fails_the_run():
    """Kept as failed, told to who follows."""

    async def scenario(world):
        follower, stream = await world.background()
        stream.emit(HELLO)
        stream.fail(EngineDied("the engine died"))
        assert (await read(follower))[-2:] == ["response.failed", "error"]
        assert await world.status() == "failed"
        assert world.given_back()

    run(scenario)


def test_cancel_ends_a_run_at_once():
    """Before it has begun, in the middle, twice: closed and kept when the call returns."""

    async def scenario(world):
        early, _ = await world.background()
        await world.responses.cancel(early.key)
        assert await world.status("resp_call1") == "cancelled"
        late, stream = await world.background()
        stream.emit(HELLO)
        await soon(lambda: len(first_events(world)) > 4)
        body = await world.responses.cancel(late.key)
        assert b'"cancelled"' in body
        assert await world.responses.cancel(late.key) == body
        assert world.given_back()
        for follower in (early, late):
            kinds = await read(follower)
            assert kinds[:2] == ["response.created", "response.queued"]
            assert kinds[-1] == "error"

    run(scenario)


def test_many_may_cancel_at_once():
    """However long the engine takes to let go, it is let finish that, and followers are told."""

    async def scenario(world):
        follower, stream = await world.background()
        slow = SlowClose(stream)
        reading = asyncio.create_task(read(follower))
        stream.emit(HELLO)
        await soon(lambda: len(first_events(world)) > 4)
        asking = []
        for _ in range(4):
            asking.append(asyncio.create_task(world.responses.cancel(follower.key)))
            await asyncio.sleep(0.01)
        await asyncio.gather(*asking)
        assert slow.finished
        assert (await reading)[-1] == "error"

    run(scenario)


def test_who_asks_for_a_cancel_may_leave():
    """The run is cancelled all the same, and the leaving is not swallowed."""

    async def scenario(world):
        follower, _ = await world.background()
        asking = asyncio.create_task(world.responses.cancel(follower.key))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await soon(lambda: world.runs.get(follower.key) is None)
        assert await world.status() == "cancelled"

    run(scenario)


def test_the_end_of_the_process_ends_every_run():
    """None is left live."""

    async def scenario(world):
        await world.background()
        await world.background()
        await world.responses.close()
        assert await world.status("resp_call1") == "cancelled"
        assert await world.status("resp_call2") == "cancelled"
        assert world.given_back()

    run(scenario)


def test_a_run_without_room_is_given_up():
    """It fails and says why; of its events the last are kept, under their numbers."""

    async def scenario(world):
        follower, stream = await world.background()
        for _ in range(100):
            stream.emit(HELLO)
        await soon(lambda: world.runs.get(follower.key) is None)
        stored = await world.store.get(follower.key)
        assert stored.status.value == "failed"
        assert [event["type"] for event in map(only, stored.events)][-2:] == [
            "response.failed", "error"
        ]  # fmt: skip
        assert only(stored.events[0])["sequence_number"] >= stored.first_event > 4
        assert world.given_back()

    run(scenario, max_bytes=9000)


def only(event):
    return events_of(event)[0]


def test_a_response_without_room_does_not_begin():
    """Refused with a time to come back, and the engine is let go."""

    async def scenario(world):
        await world.background()
        with pytest.raises(Overloaded) as caught:
            await world.background()
        assert caught.value.reply.retry_after_s
        assert world.admission.sequences == 1
        assert world.engine.streams[-1].closed
        await world.responses.close()

    run(scenario, max_bytes=9000)


def test_a_foreground_is_live_then_kept():
    """Before the last event is read."""

    async def scenario(world):
        call, stream = await world.foreground(stream=True)
        assert await world.status() == "in_progress"
        end(stream)
        async for frames in call.frames():
            if b"response.completed" in frames:
                assert await world.status() == "completed"
        await call.aclose()
        assert await world.status() == "completed"
        assert world.given_back()

    run(scenario)


def test_a_foreground_whose_client_leaves_is_cancelled():
    """A stream is kept as that; of an answer nobody has the id, so nothing is."""

    async def scenario(world):
        call, stream = await world.foreground(stream=True)
        stream.emit(HELLO)
        frames = call.frames()
        await anext(frames)
        await frames.aclose()
        await call.aclose()
        assert await world.status() == "cancelled"
        call, _ = await world.foreground()
        await call.aclose()
        assert await world.status("resp_call2") is None
        assert world.given_back()

    run(scenario)


def test_an_answer_that_fails_leaves_nothing():
    """Its client has an error and no id."""

    async def scenario(world):
        call, stream = await world.foreground()
        stream.fail(EngineDied("the engine died"))
        with pytest.raises(EngineDied):
            await call.answer()
        await call.aclose()
        assert len(world.store) == 0

    run(scenario)


def test_a_chain_that_is_broken_is_not_guessed():
    """A link that is gone is told, in continuing and in listing."""

    async def scenario(world):
        previous = None
        for place in range(3):
            call, stream = await world.foreground(previous_response_id=previous)
            end(stream)
            await call.answer()
            previous = f"resp_call{place + 1}"
        body = {"previous_response_id": previous}
        past = await world.recollection.past(body, TENANT)
        assert [each.key.id for each in past.chain] == ["resp_call1", "resp_call2", "resp_call3"]
        page = await world.responses.input_items(Key(TENANT, previous), PAGE)
        assert len(json.loads(page)["data"]) == 5
        with pytest.raises(NotFound):
            await world.recollection.past(body, b"other")
        await world.responses.delete(Key(TENANT, "resp_call2"))
        for work in (
            world.recollection.past(body, TENANT),
            world.responses.input_items(Key(TENANT, previous), PAGE),
        ):
            with pytest.raises(NotFound) as caught:
                await work
            assert caught.value.reply.code == "previous_response_not_found"

    run(scenario)


def test_a_past_that_is_too_long_is_refused_unread():
    """By its bytes, whether continued or referred to; by its count, also where it is listed."""

    async def scenario(world):
        last = None
        for place in range(1030):
            key = Key(TENANT, f"resp_{place}")
            one = replace(kept(previous=last), key=key, background=False)
            await world.store.put(one)
            last = key.id
        for work in (
            world.recollection.past({"previous_response_id": last}, TENANT),
            world.responses.input_items(Key(TENANT, last), PAGE),
        ):
            with pytest.raises(RequestRejected) as caught:
                await work
            assert caught.value.reply.param == "previous_response_id"
        await world.store.put(replace(kept(size=17 << 20), key=Key(TENANT, "resp_a1")))
        for body, param in (
            ({"previous_response_id": "resp_a1"}, "previous_response_id"),
            ({"input": [{"id": "msg_a1_0"}]}, "input"),
        ):
            with pytest.raises(RequestRejected) as caught:
                await world.recollection.past(body, TENANT)
            assert caught.value.reply.param == param

    run(scenario, max_bytes=64 << 20)


def test_events_are_followed_as_they_were_made():
    """A place that was never, or other padding, is refused by name."""

    async def scenario(world):
        follower, stream = await world.background()
        end(stream)
        count = len(await read(follower))
        await soon(lambda: world.runs.get(follower.key) is None)
        for asked, param in (
            (retrieval(count, None), "starting_after"),
            (retrieval(-1, obfuscated=True), "include_obfuscation"),
        ):
            with pytest.raises(RequestRejected) as caught:
                await world.responses.follow(follower.key, asked)
            assert caught.value.reply.param == param
        last = await world.responses.follow(follower.key, retrieval(count - 1, obfuscated=False))
        assert await read(last) == []

    run(scenario)


def test_a_place_that_a_live_response_never_comes_to_is_told():
    """Not a clean end of nothing."""

    async def scenario(world):
        follower, stream = await world.background()
        far = await world.responses.follow(follower.key, retrieval(500, None))
        end(stream)
        with pytest.raises(RequestRejected):
            await read(far)

    run(scenario)


def test_a_follower_is_told_in_the_dialect_that_the_response_is_gone():
    """An event as every other of the stream, with the number after the last it was given."""

    async def scenario(world):
        follower, stream = await world.background()
        end(stream)
        kinds = await read(follower)
        await world.responses.delete(follower.key)
        with pytest.raises(NotFound) as caught:
            await read(follower)
        (told,) = events_of(follower.fail(caught.value.reply))
        assert (told["type"], told["sequence_number"]) == ("error", len(kinds))
        assert told["code"] == told["error"]["code"] == "response_not_found"

    run(scenario)


def test_an_input_of_too_many_items_is_not_looked_up():
    """Fifty thousand references are one refusal, and no work before it."""
    many = {"input": [{"id": f"msg_{place}_0"} for place in range(2049)]}
    assert referred_ids(many) == set()
    assert len(referred_ids({"input": many["input"][:2048]})) == 2048
