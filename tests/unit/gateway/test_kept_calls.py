"""Calls with a key whose worker is gone: no second one is begun while the first may go on."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engines.api import GenerationRequest, Kept, RequestId, Sampling
from engines.errors import RequestUnknown
from engines.replicas import ReplicaSet
from gateway import resuming
from gateway.admission import Admission
from gateway.auth import Caller
from gateway.claims import Claim, MemoryClaims, asked_of, claim_name
from gateway.dispatch import Dispatcher
from gateway.durable.journal import name_of
from gateway.durable.responses import Durable
from gateway.exchange import Exchange
from gateway.kept_stream import CallRecord, Route
from gateway.lifecycle import Lifecycle, Serving
from gateway.metrics import Metrics
from gateway.rest import kept_calls
from gateway.rest.durable_calls import DurableCalls
from gateway.rest.kept_calls import KeptCalls
from gateway.rest.sse import Pace
from openai_compat.errors import NotFound
from tests.support.durable_world import soon
from tests.support.fake_engine import fake_job
from tests.support.kept_worker import KeptWorker
from tests.support.memory_journal import MemoryJournal, MemoryLeases
from tests.support.replicas import voice
from tests.unit.gateway.test_durable_calls import Lines

SALT, STEM, KEY, BODY = b"salt", "0" * 24, "order-1", b"{}"
NAME = claim_name(SALT, KEY)
RECORD = CallRecord(Route.CHAT, 1, 2, SALT, BODY)


def asked(stem):
    return GenerationRequest(RequestId(stem), (1, 2, 3), Sampling(max_tokens=12))


WHOLE = voice(asked(STEM), 0)[0]


class Calls:
    """What reads, lowers and starts calls."""

    pace = Pace(0, 10)

    def __init__(self, serving):
        self._serving = serving

    async def arrived(self, request):
        del request
        return BODY, self._serving

    async def lowered(self, raw, serving, exchange, context, lower):
        job = fake_job(asked(context.id))
        return replace(job, id=f"chatcmpl-{context.id}", renderer=Lines())

    async def start(self, job, exchange):
        return await self._serving.dispatcher.start(job, exchange)


class CountedClaims(MemoryClaims):
    """Counts how often anybody looked."""

    looks = 0

    async def claim(self, name, claim):
        self.looks += 1
        return await super().claim(name, claim)


class World:
    """One gateway and its worker."""

    def __init__(self):
        self.worker, self.journal, self.claims = KeptWorker(), MemoryJournal(), CountedClaims()
        replicas, lifecycle = ReplicaSet(), Lifecycle()
        replicas.add("one", self.worker)
        admission = Admission(max_sequences=8, max_waiting_tokens=1000)
        dispatcher = Dispatcher(replicas, admission, Metrics("test"), lambda: 0.0)
        serving = Serving(replicas, {}, dispatcher, None, None, replicas)
        lifecycle.ready(serving)
        calls = Calls(serving)
        durable = DurableCalls(lifecycle, calls, Durable(self.journal, MemoryLeases()))
        self.calls = KeptCalls(lifecycle, calls, self.claims, durable)
        self.lifecycle = lifecycle

    async def post(self, **headers):
        exchange, scope = Exchange("req-1", "POST", 0.0, caller=Caller(SALT)), {}
        exchange.attach(scope)

        async def receive():
            await asyncio.Event().wait()

        headers = {"idempotency-key": KEY, **headers}
        request = SimpleNamespace(scope=scope, headers=headers, receive=receive, query_params={})
        return await self.calls.run(request, None, Route.CHAT)

    async def stands(self):
        """A call that was begun elsewhere."""
        claim = Claim(STEM, asked_of(Route.CHAT, BODY))
        assert await self.claims.claim(NAME, claim) == claim
        return claim


async def tokens(source):
    told = []
    async for some in source.frames():
        for frame in some.decode().split("\n\n")[:-1]:
            line = frame.splitlines()[0].removeprefix("data: ")
            told += [] if line == "[DONE]" else [int(each) for each in line[1:-1].split(",")]
    await source.aclose()
    return told


def run(scenario):
    async def begun():
        await scenario(World())

    asyncio.run(asyncio.wait_for(begun(), 20))


@pytest.fixture(name="quick", autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(kept_calls, "_BEGINS_WITHIN_S", 0.05)
    monkeypatch.setattr(resuming, "_WORKERS_COME_S", 0.1)


def test_who_waits_here_for_another_worker_keeps_the_key():
    """Its worker is gone for longer than a call takes to begin: duplicates wait with it."""

    async def scenario(world):
        world.worker.says = 3
        first = (await world.post())._source
        reading = asyncio.create_task(tokens(first))
        await soon(lambda: world.worker.generated)
        world.worker.keeps = False
        second = asyncio.create_task(world.post())
        await soon(lambda: world.claims.looks > 4)
        world.worker.keeps, world.worker.says = True, 12
        assert await reading == WHOLE
        assert await tokens((await second)._source) == WHOLE
        assert len(world.worker.generated) == 1

    run(scenario)


@pytest.mark.parametrize("all_up", [True, False])
def test_elsewhere_a_key_is_free_when_nobody_can_have_its_call(all_up):
    """While a worker is away, its gateway may wait for the next one; later, nobody does."""

    async def scenario(world):
        standing = await world.stands()
        world.worker.says = 12
        world.lifecycle.serving().keeper.patience = SimpleNamespace(wait_s=1.5, clock=None)
        world.lifecycle.workers(1, 1 if all_up else 2)
        began = asyncio.get_running_loop().time()
        response = await world.post()
        assert (asyncio.get_running_loop().time() - began > 1.5) is not all_up
        assert standing.call not in response.headers["x-stream-id"]
        assert len(world.worker.generated) == 1
        await response._source.aclose()

    run(scenario)


def test_what_its_worker_forgot_meanwhile_is_told_from_the_journal():
    """A durable call that was found, and could not be joined."""

    async def scenario(world):
        await world.stands()
        await world.journal.begin(name_of(SALT, STEM), RECORD.pack(), 1)
        world.worker.kept[STEM], world.worker.says = Kept(RECORD.pack(), 5), 12
        forgets(world.worker)
        response = await world.post(**{"x-stream-durability": "durable"})
        assert response.headers["x-stream-id"] == f"chatcmpl-{STEM}"
        assert await tokens(response._source) == WHOLE
        assert (await world.stands()).call == STEM

    run(scenario)


def test_what_can_be_told_no_more_frees_its_key():
    """Nobody reads it here, and it is written nowhere."""

    async def scenario(world):
        standing = await world.stands()
        world.worker.kept[STEM] = Kept(RECORD.pack(), 5)
        forgets(world.worker)
        with pytest.raises((NotFound, RequestUnknown)):
            await world.post()
        assert await world.claims.claim(NAME, Claim("1" * 24, "x")) != standing

    run(scenario)


def forgets(worker):
    """It is asked to attach what it has just told of, and has it no more."""

    def attach(request, *, watch=False):
        worker.kept.clear()
        raise RequestUnknown("gone")

    worker.attach = attach
