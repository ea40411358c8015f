"""A gateway that dies, and another that goes on with what the worker has kept: nothing is lost."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from engines import worker_runs, worker_session
from engines.api import Kept
from engines.errors import EngineUnavailable, RequestTaken, RequestUnknown
from engines.remote import RemoteEngine
from engines.worker_runs import Keeping
from tests.support.engines import Gated, ask, ledger, limits_for, read, running, stepped
from tests.support.hosted import TOKEN, Hosted

pytestmark = pytest.mark.anyio
TOKENS = 24


@asynccontextmanager
async def worker(*, keeping=None, steps=None):
    """A worker, whose engine takes so many steps at first (None: it runs freely)."""
    limits = limits_for()
    gate = Gated(ledger(limits), 10**9 if steps is None else steps)
    engine = Hosted(stepped(limits, lambda _: gate), limits, keeping=keeping)
    async with running(engine):
        yield engine, gate


async def gateway(engine):
    """One more session with the worker."""
    remote = RemoteEngine(engine.address, token=TOKEN)
    await remote.start()
    return remote


async def die(remote):
    """As a process does: the connection is gone, and no word was said."""
    for task in remote._tasks:
        task.cancel()
    await remote._channel.close()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0.001)


async def tokens_of(stream, count):
    """At least so many tokens of choice 0, by then read."""
    tokens = []
    while len(tokens) < count:
        tokens += (await anext(stream)).tokens
    return tokens


def request(name="r", attempt=0, emitted=(), **changes):
    asked = ask(name, [1, 2, 3], max_tokens=TOKENS, **changes)
    return replace(asked, kept=Kept(b"context", attempt), emitted=emitted)


def plain(name="control", **changes):
    return ask(name, [1, 2, 3], max_tokens=TOKENS, **changes)


@pytest.mark.parametrize("known", range(TOKENS + 1))
async def test_another_gateway_goes_on_from_any_token(known):
    """From none to all of them, while it runs and after it has ended."""
    async with worker() as (engine, _):
        control = (await read(engine.generate(plain("control"))))[0]
        first, second = await gateway(engine), await gateway(engine)
        stream = first.generate(request())
        if known % 2:
            await read(stream)  # to its end
        else:
            await tokens_of(stream, max(1, known))
        await die(first)
        log = tuple(control.tokens[:known])
        rest = await read(second.attach(request(attempt=1, emitted=(log,))))
        assert [*log, *rest[0].tokens] == control.tokens
        assert rest[0].finish == control.finish
        await second.stop(0)


async def test_the_engine_computes_a_kept_request_once():
    """What was told before is told again from memory: no step is taken twice."""
    async with worker(steps=6) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        told = await tokens_of(first.generate(request()), 5)
        await die(first)
        rest = second.attach(request(attempt=1))
        assert (await tokens_of(rest, 5))[:5] == told[:5]
        gate.open()
        await read(rest)
        assert engine.inner.load().steps <= TOKENS + 2
        await second.stop(0)


async def test_every_choice_is_told_from_where_it_was():
    """One of three had ended above the engine, and stays so."""
    async with worker() as (engine, _):
        control = await read(engine.generate(plain("control", n=3, temperature=1.0, seed=5)))
        first, second = await gateway(engine), await gateway(engine)
        asked = request(n=3, temperature=1.0, seed=5)
        stream, told = first.generate(asked), 0
        while told < 4:
            event = await anext(stream)
            told += len(event.tokens) if event.choice == 0 else 0
        await die(first)
        logs = (tuple(control[0].tokens[:4]), None, ())
        rest = await read(second.attach(replace(asked, kept=Kept(b"", 1), emitted=logs)))
        assert set(rest) == {0, 2}
        assert [*control[0].tokens[:4], *rest[0].tokens] == control[0].tokens
        assert rest[2].tokens == control[2].tokens
        await second.stop(0)


async def test_without_anybody_it_ends_after_its_time():
    """The engine is free again, and nobody can attach any more."""
    async with worker(keeping=Keeping(0.2, 0.2), steps=3) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        await anext(first.generate(request()))
        await die(first)
        gate.open()
        await until(lambda: engine.inner.load().blocks_used == 0 and not engine.inner._boxes)
        await until(lambda: not engine.server._runs._kept)
        with pytest.raises(RequestUnknown):
            await read(second.attach(request(attempt=1)))
        await second.stop(0)


async def test_what_is_not_kept_ends_with_its_session():
    """As ever."""
    async with worker(steps=3) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        await anext(first.generate(plain("r")))
        await die(first)
        await until(lambda: not engine.server._runs.busy)
        gate.open()
        with pytest.raises(RequestUnknown):
            await read(second.attach(request(attempt=1)))
        await second.stop(0)


async def test_a_gateway_that_hung_cannot_take_it_back():
    """The later attempt holds it; the earlier ones hear so once, and an equal one is refused."""
    async with worker(steps=4) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        hung = first.generate(request())
        told = await tokens_of(hung, 2)
        taken = second.attach(request(attempt=1, emitted=(tuple(told),)))
        with pytest.raises(RequestTaken):
            await read(hung)
        with pytest.raises(RequestTaken):
            await read(first.attach(request(attempt=1)))
        gate.open()
        rest = await read(taken)
        control = (await read(engine.generate(plain("control"))))[0]
        assert [*told, *rest[0].tokens] == control.tokens
        again = await read(first.attach(request(attempt=2)))
        assert again[0].tokens == control.tokens
        await first.stop(0)
        await second.stop(0)


async def test_who_knows_more_than_was_told_is_refused():
    """The worker cannot tell what lies behind tokens that it never said."""
    async with worker(steps=2) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        await anext(first.generate(request()))
        await die(first)
        with pytest.raises(RequestUnknown):
            await read(second.attach(request(attempt=1, emitted=(tuple(range(20)),))))
        with pytest.raises(RequestUnknown):
            await read(second.attach(request(attempt=2, n=2)))
        gate.open()
        await second.stop(0)


async def test_what_is_closed_before_its_end_is_forgotten():
    """Its reader wants no more, and nobody else can."""
    async with worker(steps=3) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        stream = first.generate(request())
        await anext(stream)
        await stream.aclose()
        gate.open()
        await until(lambda: not engine.server._runs._kept and not engine.server._runs.busy)
        await until(lambda: engine.inner.load().blocks_used == 0)
        with pytest.raises(RequestUnknown):
            await read(second.attach(request(attempt=1)))
        for remote in (first, second):
            await remote.stop(0)


async def test_a_gateway_that_stops_leaves_its_requests_to_the_next():
    """As in a rolling restart: whoever comes within the time goes on."""
    async with worker(steps=3) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        told = await tokens_of(first.generate(request()), 2)
        await first.stop(0)
        gate.open()
        rest = await read(second.attach(request(attempt=1, emitted=(tuple(told),))))
        assert len(told) + len(rest[0].tokens) == TOKENS
        await second.stop(0)


async def test_a_reader_may_leave_and_come_back():
    """Detached, it is kept as if the session had broken; the gateway lives on."""
    async with worker(steps=4) as (engine, gate):
        first = await gateway(engine)
        stream = first.generate(request())
        told = await tokens_of(stream, 2)
        first.detach(stream)
        with pytest.raises(EngineUnavailable):
            await read(stream)
        gate.open()
        rest = await read(first.attach(request(attempt=1, emitted=(tuple(told),))))
        control = (await read(engine.generate(plain())))[0]
        assert [*told, *rest[0].tokens] == control.tokens
        await first.stop(0)


async def test_many_may_watch_and_one_decides():
    """Whoever watches gets all of it, leaves when it likes, and ends it for nobody."""
    async with worker(steps=4) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        holder = first.generate(request())
        told = await tokens_of(holder, 2)
        watchers = [second.attach(request(), watch=True) for _ in range(3)]
        watchers.append(first.attach(request(emitted=(tuple(told[:1]),)), watch=True))
        await tokens_of(watchers[0], 1)
        await watchers[0].aclose()
        gate.open()
        control = (await read(engine.generate(plain())))[0]
        rests = [await read(each) for each in watchers[1:]]
        assert [rest[0].tokens for rest in rests[:2]] == [control.tokens] * 2
        assert [*told[:1], *rests[2][0].tokens] == control.tokens
        assert [*told, *(await read(holder))[0].tokens] == control.tokens
        late = await read(second.attach(request(), watch=True))
        assert (late[0].tokens, late[0].finish) == (control.tokens, control.finish)
        for remote in (first, second):
            await remote.stop(0)


async def test_hundreds_may_watch():
    """As many as retry with one key, all told the same."""
    async with worker(steps=4) as (engine, gate):
        one = await gateway(engine)
        holder = one.generate(request())
        told = await tokens_of(holder, 2)
        watchers = [one.attach(request(), watch=True) for _ in range(300)]
        gate.open()
        texts = [(await read(each))[0].tokens for each in watchers]
        assert texts == [[*told, *(await read(holder))[0].tokens]] * 300
        await one.stop(0)


async def test_too_many_watchers_are_told_to_come_again(monkeypatch):
    """The request is well, and so is its engine."""
    monkeypatch.setattr("engines.worker_runs._MOST_WATCHERS", 2)
    async with worker(steps=4) as (engine, gate):
        one = await gateway(engine)
        holder = one.generate(request())
        await tokens_of(holder, 2)
        watchers = [one.attach(request(), watch=True) for _ in range(3)]
        with pytest.raises(EngineUnavailable, match="2 others watch"):
            await read(watchers[2])
        gate.open()
        for each in watchers[:2]:
            assert (await read(each))[0].tokens
        await one.stop(0)


async def test_what_is_watched_goes_on_without_its_holder():
    """Its gateway has died, and who watches is still there; when they go too, it ends."""
    async with worker(keeping=Keeping(0.2, 30), steps=3) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        await anext(first.generate(request()))
        watching = second.attach(request(), watch=True)
        told = await tokens_of(watching, 1)
        await die(first)
        await asyncio.sleep(0.4)
        gate.open()
        assert len(told) + len((await read(watching))[0].tokens) == TOKENS
        await second.stop(0)


async def test_what_has_moved_here_is_told_from_its_start():
    """The worker knows what was said elsewhere; of a choice that had ended there it does not."""
    async with worker() as (engine, _):
        control = await read(engine.generate(plain(n=2)))
        first = await gateway(engine)
        logs = tuple(tuple(control[choice].tokens[:9]) for choice in range(2))
        await read(first.generate(request(n=2, attempt=1, emitted=logs)))
        again = await read(first.attach(request(n=2, attempt=2)))
        assert [again[choice].tokens for choice in range(2)] == [
            control[choice].tokens for choice in range(2)
        ]
        await read(first.generate(request("half", n=2, attempt=1, emitted=(logs[0], None))))
        with pytest.raises(RequestUnknown):
            await read(first.attach(request("half", n=2, attempt=2)))
        await first.stop(0)


async def test_what_is_too_much_for_one_frame_comes_in_several(monkeypatch):
    """Many come back at once, and nobody's session breaks of it."""
    monkeypatch.setattr(worker_session, "_LARGEST_FRAME", 40)
    async with worker() as (engine, _):
        first = await gateway(engine)
        control = await read(first.generate(request(n=3, temperature=1.0)))
        asked = request(n=3, temperature=1.0)
        again = [first.attach(asked, watch=True) for _ in range(6)]
        for told in await asyncio.gather(*map(read, again)):
            assert {choice: answer.tokens for choice, answer in told.items()} == {
                choice: answer.tokens for choice, answer in control.items()
            }
            assert all(told[choice].finish == control[choice].finish for choice in told)
        await first.stop(0)


async def test_a_worker_that_is_known_to_drain_may_be_attached_to():
    """It takes nothing new, and what it keeps must go on."""
    async with worker(steps=3) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        await anext(first.generate(request()))
        await die(first)
        engine.server.drain()
        await until(lambda: second.draining)
        rest = second.attach(request(attempt=1))
        told = await tokens_of(rest, 1)
        gate.open()
        assert len([*told, *(await read(rest))[0].tokens]) == TOKENS
        await second.stop(0)


async def test_whoever_asks_is_told_what_is_kept():
    """The attempt that holds it, and the context; nothing of others."""
    async with worker() as (engine, _):
        first, second = await gateway(engine), await gateway(engine)
        await read(first.generate(request(attempt=3)))
        await read(first.generate(plain("other")))
        assert await second.find("r") == Kept(b"context", 3)
        assert await second.find("other") is None
        assert await second.find("nobody's") is None
        await read(second.attach(request(attempt=5)))
        assert await first.find("r") == Kept(b"context", 5)
        for remote in (first, second):
            await remote.stop(0)
        assert await first.find("r") is None


async def test_what_comes_back_to_a_worker_that_kept_it_takes_its_place():
    """A stream that has moved twice; an attempt that is not later is refused."""
    async with worker(steps=4) as (engine, gate):
        first, second = await gateway(engine), await gateway(engine)
        hung = first.generate(request(attempt=1))
        told = await tokens_of(hung, 2)
        back = second.generate(request(attempt=2, emitted=(tuple(told),)))
        with pytest.raises(RequestTaken):
            await read(hung)
        with pytest.raises(RequestTaken):
            await read(first.generate(request(attempt=2)))
        gate.open()
        control = (await read(engine.generate(plain())))[0]
        assert [*told, *(await read(back))[0].tokens] == control.tokens
        for remote in (first, second):
            await remote.stop(0)


async def test_what_has_ended_is_kept_within_bounds(monkeypatch):
    """The oldest goes first; what runs does not count."""
    monkeypatch.setattr(worker_runs, "_KEPT_BYTES", 5_000)
    async with worker() as (engine, _):
        first = await gateway(engine)
        for number in range(6):
            await read(first.generate(request(f"r{number}")))
        await until(lambda: not engine.server._runs.busy)
        kept = [number for number in range(6) if await first.find(f"r{number}") is not None]
        assert kept in ([4, 5], [3, 4, 5])
        assert engine.server._runs._bytes <= 5_000
        await first.stop(0)


async def test_a_drain_waits_for_what_is_kept_and_runs():
    """It may still be attached to; the worker ends when that has ended."""
    async with worker(steps=3) as (engine, gate):
        first = await gateway(engine)
        await anext(first.generate(request()))
        await die(first)
        await until(lambda: all(run.heard_by is None for run in engine.server._runs._running))
        engine.server.drain()
        drained = asyncio.create_task(engine.server.drained())
        await asyncio.sleep(0.05)
        assert not drained.done()
        with pytest.raises(EngineUnavailable, match="draining"):
            await read(engine.generate(plain("late")))
        second = await gateway(engine)
        rest = second.attach(request(attempt=1))
        told = await tokens_of(rest, 1)
        gate.open()
        assert len([*told, *(await read(rest))[0].tokens]) == TOKENS
        await asyncio.wait_for(drained, 10)
        await second.stop(0)
