"""Several engines as one: streams that outlive replicas, liars, and requests that kill."""

import asyncio
import time
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.api import EngineLoad, RequestId, TierLoad
from engines.errors import (
    EngineDied,
    EngineUnavailable,
    InvalidRequest,
    RequestQuarantined,
    Unsupported,
)
from engines.replicas import ReplicaSet, pauses
from engines.replicas.policies import LeastLoaded, RoundRobin, Sticky
from engines.replicas.prefix_aware import PrefixAware
from tests.support.engines import ask, read, running
from tests.support.grammars import END, json_grammar
from tests.support.replicas import (
    LIES,
    Dying,
    Fate,
    HandEngine,
    fleet,
    ledger_engine,
    read_until,
    voice,
)

pytestmark = pytest.mark.anyio

PERSON = json_grammar(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 4},
            "kind": {"enum": ["a b", "c d"]},
        },
        "required": ["name", "kind"],
        "additionalProperties": False,
    }
)
WARM = {"temperature": 1.0, "seed": 5}
# name -> (request, choices that are ended after so many tokens)
MIX = {
    "greedy": (ask("greedy", [1, 2, 3], max_tokens=34), {}),
    "long prompt": (ask("long prompt", [*range(60)], max_tokens=8), {}),
    "seeded": (ask("seeded", [4, 5], max_tokens=30, **WARM), {}),
    "two": (ask("two", [6, 7, 8], n=2, max_tokens=24, **WARM), {}),
    "ended": (ask("ended", [9, 10], n=3, max_tokens=16, **WARM), {0: 0, 1: 5}),
    "stops": (
        ask("stops", [1, 5], n=2, max_tokens=40, stop_tokens=frozenset(range(0, 500, 17)), **WARM),
        {},
    ),
    "grammar": (
        ask("grammar", [3, 3], n=2, max_tokens=50, grammar=PERSON, stop_tokens=frozenset({END}),
            **WARM), {},
    ),
}  # fmt: skip


async def controls(engine):
    """What each of the mix says undisturbed."""
    async with running(engine):
        names = list(MIX)
        streams = [engine.generate(MIX[name][0]) for name in names]
        return dict(zip(names, await asyncio.gather(*map(read, streams)), strict=True))


async def tell_mix(engine, *, condemned=()):
    """The whole mix at once; `condemned` is the kind of error that leaves one of it out."""
    streams = [(engine.generate(request), ends) for request, ends in MIX.values()]
    reads = (read_until(stream, ends) for stream, ends in streams)
    answers = await asyncio.gather(*reads, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, condemned):
            raise answer
    told = dict(zip(MIX, answers, strict=True))
    return {name: answer for name, answer in told.items() if isinstance(answer, dict)}


def check_mix(want, got):
    """Nothing is lost, nothing doubled; what was ended is told as far as it was wanted."""
    for name in got:
        ends = MIX[name][1]
        for choice, control in want[name].items():
            if ends.get(choice) == 0:
                assert choice not in got[name]
                continue
            answer = got[name][choice]
            if choice in ends:
                assert answer.tokens == control.tokens[: len(answer.tokens)]
                assert len(answer.tokens) >= ends[choice]
            else:
                assert (answer.tokens, answer.finish) == (control.tokens, control.finish), name


def one_dies_at(step):
    """The first replica fails at that step, in its first life."""
    return lambda name, life, on_death: ledger_engine(
        lambda runner: Dying(runner, step if (name, life) == ("a", 0) else None), on_death
    )


def quiet(own):
    """No stream is known any more, and no replica that lives holds anything."""
    assert not own.replicas._streams
    assert not own.replicas.changes._waiters
    assert not any(replica.guests for replica in own.replicas._replicas.values())


async def settled(engine):
    """Wait until an engine holds nothing."""
    async with asyncio.timeout(10):
        while (engine.load().running, engine.load().waiting) != (0, 0):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_replica_may_die_at_any_step_of_a_mixed_load():
    """One of two fails at step 1, 2, ... until it gets through: every stream is its control."""
    want = await controls(ledger_engine())
    moved = 0
    for step in range(1, 200):
        async with fleet(one_dies_at(step), "ab") as own:
            check_mix(want, await tell_mix(own.replicas))
            counters = own.replicas.counters
            assert (counters.lost, counters.quarantined) == (0, 0)
            quiet(own)
            moved += counters.migrations
            if not own.deaths:
                break
            await settled(own.replicas.engines["b"])
    assert step > 20
    assert moved > step


async def test_the_only_replica_may_die_and_die_again():
    """It comes back each time, and the streams wait for it."""
    want = await controls(ledger_engine())

    def make(_name, life, on_death):
        return ledger_engine(lambda runner: Dying(runner, 9 if life < 2 else None), on_death)

    async with fleet(make, "a", restarts=True) as own:
        check_mix(want, await tell_mix(own.replicas))
        assert len(own.deaths) == 2
        assert own.replicas.counters.lost == 0
        quiet(own)


async def test_a_replica_that_stops_hands_its_streams_on():
    """No grace at all: that is no death, and casts no suspicion."""
    want = await controls(ledger_engine())
    async with fleet(one_dies_at(None), "ab") as own:
        reading = asyncio.ensure_future(tell_mix(own.replicas))
        await asyncio.sleep(0)
        own.replicas.retire("a")
        await own.replicas.engines["a"].stop(grace_s=0)
        own.replicas.remove("a")
        check_mix(want, await reading)
        assert own.replicas.counters.lost == 0
        assert own.replicas.counters.migrations > 0
        quiet(own)


async def test_a_reader_that_hangs_holds_nobody_up_and_misses_nothing():
    """It reads after its replica has died and others have gone on: what was told, then the rest."""
    want = await controls(ledger_engine())
    async with fleet(one_dies_at(4), "a") as own:
        hung = own.replicas.generate(replace(MIX["two"][0], id=RequestId("hung")))
        others = asyncio.ensure_future(tell_mix(own.replicas))
        async with asyncio.timeout(10):
            while not own.deaths:  # noqa: ASYNC110
                await asyncio.sleep(0)
        await own.begin("b")
        check_mix(want, await others)
        late = await read(hung)
        for choice, control in want["two"].items():
            assert (late[choice].tokens, late[choice].finish) == (control.tokens, control.finish)
        quiet(own)


async def test_vectors_start_over():
    """A pooled request has nothing to go on with; it is asked again as it was."""
    request = replace(ask("a", [1, 2, 3], max_tokens=1), pooled=True)
    replicas, engines = by_hand(Fate(0, "dies"), Fate(0, "no vector"), Fate(), count=3)
    (event,) = [event async for event in replicas.generate(request)]
    assert event.vector == [float(voice(request, 0)[0][0])]
    assert [stream.request for engine in engines for stream in engine.streams] == [request] * 3


def by_hand(*fates, count=2, **options):
    """A set of replicas whose streams meet these fates in order, and the replicas."""
    replicas, shared = ReplicaSet(**options), deque(fates)
    engines = [HandEngine(shared) for _ in range(count)]
    for name, engine in enumerate(engines):
        replicas.add(str(name), engine)
    return replicas, engines


@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("lie", [lie for lie in LIES if lie != "no vector"])
async def test_a_lie_is_never_told_and_the_stream_goes_on_elsewhere(lie, after):
    """The liar loses this stream, which is closed there, but no other; nobody is suspected."""
    request = ask("a", [1, 2], n=2, max_tokens=2)
    replicas, engines = by_hand(Fate(after, lie), count=2)
    answers = await read(replicas.generate(request))
    for choice in range(2):
        assert (answers[choice].tokens, answers[choice].finish) == voice(request, choice)
    (liar,) = engines[0].streams
    assert liar.closed
    assert len(engines[1].streams) == 1
    assert replicas.counters.migrations == 1
    assert not replicas._streams


async def test_an_engine_that_only_lies_is_given_up():
    """After so many moves the stream fails, as if the engine had died."""
    replicas, engines = by_hand(*[Fate(1, "too many")] * 9, count=2, migrations=3)
    with pytest.raises(EngineDied):
        await read(replicas.generate(ask("a", [1, 2])))
    assert sum(len(engine.streams) for engine in engines) == 4
    assert (replicas.counters.migrations, replicas.counters.lost) == (3, 1)
    assert not replicas._streams


async def test_an_end_that_was_never_told_follows_from_the_last_token():
    """The replica dies between the last token and the finish: nobody need compute anything."""
    replicas, engines = by_hand(Fate(1, "dies", chunk=3))
    request = ask("a", [1, 2], max_tokens=4)
    stream = replicas.generate(request)
    first = await anext(stream)
    stream._progress._logs[0].append(voice(request, 0)[0][3])  # told without its finish
    (last,) = [event async for event in stream]
    assert (first.tokens, last.tokens) == (voice(request, 0)[0][:3], [])
    assert last.finish == voice(request, 0)[1]
    assert not engines[1].streams


async def test_errors_of_the_request_itself_are_its_own():
    """At once or while it runs, they pass through once and leave nothing."""
    async with fleet(one_dies_at(None), "ab") as own:
        with pytest.raises(Unsupported):
            own.replicas.generate(ask("a", [1], presence=1.0))
        with pytest.raises(InvalidRequest, match="no tokens"):
            own.replicas.generate(ask("a", []))
        stream = own.replicas.generate(ask("a", [1], grammar="start: nothing"))
        with pytest.raises(InvalidRequest, match="grammar"):
            await read(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        stream = own.replicas.generate(ask("a", [1]))
        with pytest.raises(InvalidRequest, match="already open"):
            own.replicas.generate(ask("a", [1]))
        await stream.aclose()
        quiet(own)


async def test_without_a_replica_requests_are_refused():
    """Before the first, while all are dead or retired, and after the stop."""
    replicas = ReplicaSet()
    with pytest.raises(EngineUnavailable):
        replicas.generate(ask("a", [1]))
    replicas, engines = by_hand(count=2)
    replicas.retire("0")
    engines[1].alive = False
    with pytest.raises(EngineUnavailable, match="no replica is ready"):
        replicas.generate(ask("a", [1]))
    replicas.add("2", HandEngine(deque()))
    assert len((await read(replicas.generate(ask("a", [1]))))[0].tokens) == 16
    await replicas.stop(grace_s=0)
    with pytest.raises(EngineUnavailable, match="stopping"):
        replicas.generate(ask("a", [1]))
    await replicas.stop(grace_s=0)


async def test_replicas_serve_the_same():
    """A replica of another model, or under a name in use, is not let in."""
    replicas, (engine,) = by_hand(count=1)
    other = HandEngine(deque())
    with pytest.raises(ValueError, match="already"):
        replicas.add("0", other)
    other.info = replace(engine.info, max_context=9)
    with pytest.raises(ValueError, match="the others are"):
        replicas.add("1", other)
    assert replicas.engines == {"0": engine}
    assert replicas.info == engine.info
    other.info = replace(engine.info, num_blocks=9)  # as much as was free where it started
    replicas.add("1", other)
    assert replicas.info == engine.info


async def test_a_request_goes_to_the_least_loaded():
    """By what the replicas say, and by what was sent since: also in one burst."""
    replicas, engines = by_hand(count=3)
    engines[1].load = lambda: EngineLoad(2, 1, 9, 0, 64)
    for number in range(8):
        replicas.generate(ask(f"r{number}", [1], n=1 + number % 2))
    sent = [sum(stream.request.n for stream in engine.streams) for engine in engines]
    assert sum(sent) == 12
    assert max(sent[0], sent[2]) - min(sent[0], sent[2]) <= 2
    assert sent[1] <= 3


async def test_load_is_the_sum_and_totals_never_go_back():
    """Who is dead or removed still counts in what was done, and holds nothing any more."""
    replicas, engines = by_hand(count=3)
    for engine in engines:
        engine.load = lambda: EngineLoad(1, 2, 3, 4, 5, 10, 20, 30, 40)
    assert replicas.load() == EngineLoad(3, 6, 9, 12, 15, 30, 60, 90, 120)
    engines[0].load = lambda: EngineLoad(1, 2, 3, 4, 5, 10, 20, 30, 40, alive=False)
    assert replicas.load() == EngineLoad(2, 4, 6, 8, 10, 30, 60, 90, 120)
    replicas.remove("0")
    assert replicas.load() == EngineLoad(2, 4, 6, 8, 10, 30, 60, 90, 120)


async def test_tiers_are_summed_each_by_itself():
    """What one engine has no tier for takes nothing from the others; totals never go back here."""
    replicas, engines = by_hand(count=3)
    device, host = TierLoad(0, 4, 40, 9, 5, 3), TierLoad(1, 1, 10, 2, 1, 1, 1, 0, 6)
    engines[0].load = lambda: EngineLoad(0, 0, 0, 0, 0, tiers=(device,))
    engines[1].load = lambda: EngineLoad(0, 0, 0, 0, 0, tiers=(device, host))
    assert replicas.load().tiers == (TierLoad(0, 8, 80, 18, 10, 6), host)
    replicas.remove("1")
    assert replicas.load().tiers == (
        TierLoad(0, 4, 40, 18, 10, 6),
        TierLoad(1, 0, 0, 2, 1, 1, 1, 0, 6),
    )


async def test_requests_are_counted_by_where_they_went():
    """Of replicas that are there: one that comes back begins anew."""
    replicas, _ = by_hand(count=2)
    for number in range(5):
        replicas.generate(ask(f"r{number}", [1]))
    assert sorted(replicas.counters.placements.requests.items()) == [("0", 3), ("1", 2)]
    replicas.remove("0")
    assert replicas.counters.placements.requests == {"1": 2}


async def waiting(replicas, stream):
    """A reader that has come to wait for a replica."""
    reading = asyncio.ensure_future(read(stream))
    async with asyncio.timeout(10):
        while not replicas.changes._waiters:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return reading


async def test_closing_while_waiting_for_a_replica_leaves_nothing():
    """The reader ends without an error, and a replica that comes later is asked nothing."""
    replicas, _ = by_hand(Fate(1, "dies"), count=1)
    stream = replicas.generate(ask("a", [1, 2]))
    reading = await waiting(replicas, stream)
    await stream.aclose()
    assert len((await reading)[0].tokens) == 1
    late = HandEngine(deque())
    replicas.add("late", late)
    await asyncio.sleep(0)
    assert not late.streams
    assert not replicas._streams
    assert not replicas.changes._waiters
    assert replicas.counters.lost == 0


async def test_a_reader_that_is_cancelled_while_waiting_can_read_on():
    """Cancelling a read loses nothing: the stream is still open."""
    replicas, _ = by_hand(Fate(2, "dies"), count=1)
    request = ask("a", [1, 2])
    stream = replicas.generate(request)
    first = [await anext(stream), await anext(stream)]
    reading = await waiting(replicas, stream)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert not replicas.changes._waiters
    replicas.add("late", HandEngine(deque()))
    rest = await read(stream)
    assert [*first[0].tokens, *first[1].tokens, *rest[0].tokens] == voice(request, 0)[0]


async def test_ending_the_last_choice_while_waiting_ends_the_stream():
    """Nobody waits for a replica that has nothing to do."""
    replicas, _ = by_hand(Fate(1, "dies"), count=1)
    stream = replicas.generate(ask("a", [1, 2], n=2))
    reading = await waiting(replicas, stream)
    stream.end_choice(1)
    stream.end_choice(0)
    assert list(await reading) == [0]
    assert not replicas._streams
    assert not replicas.changes._waiters


async def test_waiting_for_a_replica_has_an_end():
    """No replica within `wait_s`: EngineDied, once."""
    replicas, _ = by_hand(Fate(1, "dies"), count=1, wait_s=0.05)
    stream = replicas.generate(ask("a", [1, 2]))
    with pytest.raises(EngineDied, match="no other could go on"):
        await read(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert replicas.counters.lost == 1
    assert not replicas._streams
    assert not replicas.changes._waiters


async def test_stopping_fails_those_who_wait_for_a_replica():
    """As any stream that is open when the grace is over."""
    replicas, _ = by_hand(Fate(1, "dies"), count=1)
    reading = await waiting(replicas, replicas.generate(ask("a", [1, 2])))
    await replicas.stop(grace_s=0)
    with pytest.raises(EngineUnavailable, match="stopping"):
        await reading


async def test_a_stop_lets_streams_end_and_move_within_the_grace():
    """A replica that dies meanwhile is no reason to fail its streams."""
    want = await controls(ledger_engine())
    async with fleet(one_dies_at(7), "ab") as own:
        reading = asyncio.ensure_future(tell_mix(own.replicas))
        await asyncio.sleep(0)
        await own.replicas.stop(grace_s=30)
        check_mix(want, await reading)
        assert own.deaths == [("a", 0)]


# -- adapters and extras


@pytest.mark.parametrize("told", [0, 2])
async def test_a_moved_request_keeps_its_adapter_and_extras_and_says_that_it_has_moved(told):
    """Also where nothing was told: its extras may name a state that the lost engine has taken."""
    replicas, engines = by_hand(Fate(told, "dies", chunk=3), count=2)
    request = replace(ask("a", [1, 2]), adapter="poet", extras={"x": "{}"})
    answer = (await read(replicas.generate(request)))[0]
    assert answer.tokens == voice(request, 0)[0]
    first, second = (stream.request for engine in engines for stream in engine.streams)
    assert first is request
    assert second == replace(request, emitted=(tuple(answer.tokens[: 3 * told]),))


async def test_a_moved_request_without_extras_that_was_told_nothing_is_a_fresh_one():
    """It is computed as if it had never been anywhere, prompt log-probabilities and all."""
    for changes in ({"adapter": "poet"}, {"extras": {"x": "1"}, "pooled": True}):
        replicas, engines = by_hand(Fate(0, "dies"), count=2)
        request = replace(ask("a", [1, 2], max_tokens=1), **changes)
        await read(replicas.generate(request))
        requests = [stream.request for engine in engines for stream in engine.streams]
        assert requests == [request, request]


async def test_replicas_that_differ_in_adapters_or_extras_are_not_one():
    """A request would be refused by one and not by the other."""
    replicas, _ = by_hand(count=1)
    for changes in ({"adapters": ("poet",)}, {"extras": frozenset({"x"})}):
        other = HandEngine(deque())
        other.info = replace(other.info, **changes)
        with pytest.raises(ValueError, match="the others are"):
            replicas.add("other", other)


# -- requests that kill

POISON = 99


def poisoned(_name, _life, on_death, *, reached=0):
    """A ledger that dies of prompts with a 99 in them, when they get so far."""
    return ledger_engine(
        lambda runner: Dying(runner, poison=POISON, reached=reached), on_death,
        max_running=16, tokens_per_step=96,
    )  # fmt: skip


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
@pytest.mark.parametrize("reached", [0, 5])
async def test_a_request_that_kills_is_refused_and_innocents_finish(names, reached):
    """Whether at its prompt or later, on one replica or several, at most four times."""
    want = await controls(ledger_engine())

    def make(name, life, on_death):
        return poisoned(name, life, on_death, reached=reached)

    async with fleet(make, names, restarts=True) as own:
        mix = asyncio.ensure_future(tell_mix(own.replicas))
        await asyncio.sleep(0)
        killer = ask("killer", [POISON, 1, 2], n=2, max_tokens=9)
        with pytest.raises(RequestQuarantined, match="failed again"):
            await read(own.replicas.generate(killer))
        check_mix(want, await mix)
        assert 2 <= len(own.deaths) <= 4
        assert (own.replicas.counters.lost, own.replicas.counters.quarantined) == (0, 1)
        again = replace(killer, id=RequestId("again"), sampling=replace(killer.sampling, seed=7))
        with pytest.raises(RequestQuarantined, match="like this one"):
            own.replicas.generate(again)
        assert own.replicas.counters.quarantined == 2
        quiet(own)


async def test_two_that_kill_are_found_out_one_after_the_other():
    """Together on their replicas at first; each is refused, and the innocents finish."""
    want = await controls(ledger_engine())
    async with fleet(poisoned, "abc", restarts=True, migrations=6) as own:
        mix = asyncio.ensure_future(tell_mix(own.replicas))
        killers = [own.replicas.generate(ask(f"k{i}", [POISON, i])) for i in range(2)]
        outcomes = await asyncio.gather(*map(read, killers), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [RequestQuarantined] * 2
        check_mix(want, await mix)
        assert own.replicas.counters.lost == 0
        quiet(own)


async def test_a_request_that_met_two_deaths_by_chance_is_not_condemned():
    """It was told something in between: it had passed the point of the first death."""
    fates = [Fate(3, "dies"), Fate(1, "dies"), Fate(2, "dies")]
    replicas, _ = by_hand(*fates, count=4)
    request = ask("a", [1, 2])
    answer = (await read(replicas.generate(request)))[0]
    assert answer.tokens == voice(request, 0)[0]


async def test_replicas_that_leave_in_order_cost_a_stream_nothing():
    """A rolling restart may meet it as often as it likes."""
    replicas, _ = by_hand(*[Fate(1, "leaves")] * 8, count=9, migrations=0)
    request = ask("a", [1, 2])
    answer = (await read(replicas.generate(request)))[0]
    assert (answer.tokens, answer.finish) == voice(request, 0)
    assert replicas.counters.migrations == 8


async def test_the_same_prompt_with_another_adapter_or_extra_is_another_request():
    """What is computed differs, so what killed two replicas need not kill a third."""
    replicas, _ = by_hand(Fate(0, "dies"), Fate(0, "dies"), count=3)
    request = replace(ask("a", [1, 2]), adapter="poet", extras={"x": "1", "y": "2"})
    with pytest.raises(RequestQuarantined):
        await read(replicas.generate(request))
    with pytest.raises(RequestQuarantined):
        replicas.generate(replace(request, extras={"y": "2", "x": "1"}))
    for changes in ({"adapter": ""}, {"adapter": "clerk"}, {"extras": {"x": "2"}}):
        assert (await read(replicas.generate(replace(request, **changes))))[0].finish is not None


@pytest.mark.parametrize("stood_still", [True, False])
async def test_deaths_after_a_pause_of_our_own_condemn_nobody(monkeypatch, stood_still):
    """All sessions broke while this process was stopped, whatever ran in them."""
    monkeypatch.setattr(pauses, "_LOOK_S", 0.001)
    monkeypatch.setattr(pauses, "_LATE_S", 0.05)
    replicas, _ = by_hand(Fate(0, "dies"), Fate(0, "dies"), Fate(), count=3)
    watching = asyncio.create_task(replicas.pauses.watch())
    await asyncio.sleep(0.005)
    if stood_still:
        time.sleep(0.1)  # noqa: ASYNC251 - nothing runs meanwhile
        await asyncio.sleep(0.005)
    assert replicas.pauses.lately is stood_still
    request = ask("a", [1, 2, 3])
    if stood_still:
        answers = await read(replicas.generate(request))
        assert (answers[0].tokens, answers[0].finish) == voice(request, 0)
    else:
        with pytest.raises(RequestQuarantined):
            await read(replicas.generate(request))
    assert replicas.quarantine.holds(request) is not stood_still
    watching.cancel()


async def test_what_is_quarantined_is_forgotten_after_a_while():
    """By time, on the set's own clock; a request that differs in more than its seed is another."""
    now = [0.0]
    replicas, _ = by_hand(Fate(0, "dies"), Fate(0, "dies"), count=3, clock=lambda: now[0])
    request = ask("a", [1, 2], stop_tokens=frozenset({3, 35}), bias={1: 2.0})
    with pytest.raises(RequestQuarantined):
        await read(replicas.generate(request))
    same = ask("a", [1, 2], stop_tokens=frozenset({35, 3}), bias={1: 2.0}, seed=4)
    with pytest.raises(RequestQuarantined):
        replicas.generate(same)
    assert len((await read(replicas.generate(ask("b", [1, 2]))))[0].tokens) == 16
    now[0] = 3601.0
    assert (await read(replicas.generate(same)))[0].finish is not None


# -- any schedule

fates = st.builds(
    Fate,
    st.integers(0, 4),
    st.sampled_from(["dies", "dies", "leaves", *LIES[:-1]]),
    st.integers(1, 5),
)


@given(
    schedule=st.lists(fates, max_size=12),
    chunk=st.integers(1, 5),
    n=st.integers(1, 3),
    length=st.integers(1, 12),
    stops=st.frozensets(st.integers(0, 49), max_size=8),
    ends=st.dictionaries(st.integers(0, 2), st.integers(0, 6), max_size=2),
    migrations=st.integers(0, 12),
)
@settings(max_examples=400, deadline=None)
def test_any_schedule_of_deaths_and_lies_gives_the_control(  # noqa: PLR0917
    schedule, chunk, n, length, stops, ends, migrations
):
    """The control, its beginning and one error: never anything else, and never more moves.

    A replica that leaves in order costs nothing of what a stream may outlive.
    """

    async def run():
        replicas = ReplicaSet(migrations=migrations, wait_s=0)
        shared = deque([*schedule, Fate(0, "lives", chunk)])
        for name in range(len(schedule) + 1):
            replicas.add(str(name), HandEngine(shared))
        request = ask("a", [1, length], n=n, max_tokens=length, stop_tokens=stops)
        stream = replicas.generate(request)
        wanted = {choice: count for choice, count in ends.items() if choice < n}
        answers = await _as_far_as_it_goes(stream, wanted)
        whole = [voice(request, choice) for choice in range(n)]
        for choice, (tokens, finish) in answers.items():
            said, end = whole[choice]
            assert tokens == said[: len(tokens)]
            assert finish in (None, end)
            assert finish is None or tokens == said
        if stream_failed := answers.failure:
            deaths = sum(fate.then == "dies" for fate in schedule)
            assert isinstance(stream_failed, RequestQuarantined | EngineDied)
            assert not isinstance(stream_failed, RequestQuarantined) or deaths > 1
            failures = sum(fate.then != "leaves" for fate in schedule)
            assert isinstance(stream_failed, RequestQuarantined) or failures > migrations
        else:
            for choice in range(n):
                tokens, finish = answers.get(choice, ([], None))
                assert finish is not None or choice in wanted
                assert finish is not None or len(tokens) >= wanted[choice]
        leaves = sum(fate.then == "leaves" for fate in schedule)
        assert replicas.counters.migrations <= migrations + leaves
        assert not replicas._streams
        assert replicas.load().running == 0

    asyncio.run(run())


class _Told(dict):
    """(tokens, finish) by choice, and what ended the stream before its time."""

    failure = None


async def _as_far_as_it_goes(stream, ends):
    told = _Told()
    for choice, count in ends.items():
        if count == 0:
            stream.end_choice(choice)
    try:
        async for event in stream:
            tokens, finish = told.get(event.choice, ([], None))
            assert finish is None, "an event after the finish"
            told[event.choice] = (tokens + event.tokens, event.finish)
            if event.finish is None and len(tokens + event.tokens) >= ends.get(event.choice, 99):
                stream.end_choice(event.choice)
    except (EngineDied, RequestQuarantined) as error:
        told.failure = error
    return told


@given(
    deaths=st.lists(st.integers(1, 25), max_size=5),
    names=st.sampled_from(["a", "ab", "abc"]),
    routing=st.sampled_from([LeastLoaded, RoundRobin, Sticky, PrefixAware]),
)
@settings(max_examples=40, deadline=None)
def test_real_engines_may_die_at_any_steps(deaths, names, routing):
    """Each life of each replica ends at some step: the mix equals its control in any policy."""
    schedule = deque(deaths)

    def make(_name, _life, on_death):
        at = schedule.popleft() if schedule else None
        return ledger_engine(lambda runner: Dying(runner, at), on_death)

    async def run():
        want = await controls(ledger_engine())
        async with fleet(make, names, restarts=True, migrations=99, routing=routing()) as own:
            got = await tell_mix(own.replicas, condemned=RequestQuarantined)
            check_mix(want, got)
            assert own.replicas.counters.lost == 0
            assert len(MIX) - len(got) == own.replicas.counters.quarantined
            assert got.keys() == want.keys() or len(own.deaths) > 1
            quiet(own)

    asyncio.run(run())
