"""Second readers of a kept request: they follow the first to wherever it moves."""

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from engines.api import Kept
from engines.errors import EngineDied, EngineUnavailable, RequestUnknown
from engines.replicas import ReplicaSet, WatchingStream, find
from tests.conformance.test_attach import gateway
from tests.support.engines import Gated, ask, ledger, limits_for, read, running, stepped
from tests.support.hosted import Hosted

pytestmark = pytest.mark.anyio
SAMPLED = {"temperature": 1.0, "seed": 5, "max_tokens": 40}


def asked(n=2, **sampling):
    return replace(ask("r", [1, 2, 3], n=n, **{**SAMPLED, **sampling}), kept=Kept(b"{}"))


@asynccontextmanager
async def worker(*, steps=10**9):
    limits = limits_for()
    gate = Gated(ledger(limits), steps)
    async with running(Hosted(stepped(limits, lambda _: gate), limits)) as engine:
        yield engine, gate


@asynccontextmanager
async def front(*engines, **options):
    """A gateway's set over its own sessions with some workers."""
    async with AsyncExitStack() as stack:
        replicas = ReplicaSet(**options)
        for number, engine in enumerate(engines):
            remote = await gateway(engine)
            stack.push_async_callback(remote.stop, 0)
            replicas.add(str(number), remote)
        yield replicas


async def watch(replicas, request, within_s=20.0):
    stream = WatchingStream(
        request,
        replicas,
        replicas.info.vocab_size,
        within_s=within_s,
        clock=replicas.patience.clock,
    )
    stream.attach(await find(replicas.engines, request.id))
    return stream


async def heard(stream, count, ends=()):
    """So many tokens of choice 0 at least; what was told by choice."""
    told = {}
    while len(told.get(0, [])) < count:
        event = await anext(stream)
        told.setdefault(event.choice, []).extend(event.tokens)
    for choice in ends:
        stream.end_choice(choice)
    return told


async def rest(stream, told):
    """All of it, behind what was told."""
    for choice, answer in (await read(stream)).items():
        told.setdefault(choice, []).extend(answer.tokens)
    return told


async def test_who_watches_follows_the_request():
    """At the same gateway and at another one; each gets all of it."""
    async with worker(steps=12) as (one, gate), worker() as (two, _), worker() as (third, _):
        control = {
            choice: each.tokens
            for choice, each in (
                await read(third.generate(ask("c", [1, 2, 3], n=2, **SAMPLED)))
            ).items()
        }
        async with front(one) as here, front(one, two) as there:
            holder = here.generate(asked())
            told = await heard(holder, 3)
            beside = await watch(here, asked()), await watch(there, asked())
            tolds = [await heard(each, 3) for each in beside]
            remote = await gateway(two)
            here.add("two", remote)
            await one.server.stop(0)
            gate.open()
            assert await rest(holder, told) == control
            for each, so_far in zip(beside, tolds, strict=True):
                assert await rest(each, so_far) == control
            await remote.stop(0)


async def test_who_watches_what_nobody_moves_is_told_so():
    """After the time that its main reader would have had."""
    async with worker(steps=6) as (one, gate), worker() as (two, _), front(one, two) as replicas:
        del two
        here = replicas.engines["0"]
        holder = here.generate(asked())  # whose gateway moves nothing
        await anext(holder)
        beside = await watch(replicas, asked(), within_s=0.3)
        told = await heard(beside, 1)
        await one.server.stop(0)
        gate.open()
        with pytest.raises(EngineDied, match="nobody went on"):
            await rest(beside, told)


async def test_who_watches_what_is_cancelled_is_told_so():
    """At once: it went nowhere."""
    async with worker(steps=6) as (one, gate), front(one) as replicas:
        holder = replicas.generate(asked())
        await anext(holder)
        beside = await watch(replicas, asked())
        told = await heard(beside, 1)
        await holder.aclose()
        with pytest.raises(RequestUnknown, match="no more of it"):
            await rest(beside, told)
        gate.open()


async def test_too_many_who_watch_are_refused(monkeypatch):
    """And do not wait for it to move."""
    monkeypatch.setattr("engines.worker_runs._MOST_WATCHERS", 0)
    async with worker(steps=6) as (one, gate), front(one) as replicas:
        await anext(replicas.generate(asked()))
        with pytest.raises(EngineUnavailable, match="others watch"):
            await (await watch(replicas, asked())).begin(5)
        gate.open()


async def test_what_had_ended_before_a_move_is_told_to_who_comes_after():
    """One choice by its reader, one by its length: the worker that has the rest lacks both."""
    async with worker(steps=14) as (one, gate), worker() as (two, _), worker() as (third, _):
        whole = await read(third.generate(ask("c", [1, 2, 3], n=3, **SAMPLED)))
        stop = whole[1].tokens[4]
        sampling = {"stop_tokens": frozenset({stop})}
        plain = ask("c", [1, 2, 3], n=3, **{**SAMPLED, **sampling})
        control = {
            choice: each.tokens for choice, each in (await read(third.generate(plain))).items()
        }
        async with front(one) as first, front(two) as later:
            holder = first.generate(asked(n=3, **sampling))
            told = await heard(holder, 8, ends=[0])
            remote = await gateway(two)
            first.add("two", remote)
            await one.server.stop(0)
            gate.open()
            told = await rest(holder, told)
            assert told[1] == control[1]
            assert told[2] == control[2]
            found = await find(later.engines, "r")
            assert {event.choice for event in found.kept.told} >= {0, 1}
            again = later.attach(asked(n=3, **sampling), found)
            answers = {0: []}
            async for event in again:
                answers.setdefault(event.choice, []).extend(event.tokens)
                if event.choice == 0:
                    again.end_choice(0)
            assert answers[0] == told[0]
            assert answers[1] == control[1]
            assert answers[2] == control[2]
            await remote.stop(0)
