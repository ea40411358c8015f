"""An SMG server that is left, and one that goes: nothing stays behind, on either side."""

import asyncio
import gc
from random import Random

import pytest

from engines.errors import EngineDied, EngineUnavailable
from engines.smg.server import Server
from engines.smg.stubs import load_stubs
from tests.conformance.test_engine_contract import settled
from tests.support.engines import ask, read, running

smg = pytest.importorskip("tests.support.smg", reason="needs the SMG stubs: penstock[smg]")
END = smg.END

pytestmark = pytest.mark.anyio


@pytest.fixture
def kind():
    """Makes engines with servers of their own."""
    return smg.Kind()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a test waits for a fact
            await asyncio.sleep(0.001)


async def nothing_left(engine, gate=None):
    """Neither here nor on the server."""
    await engine.heard()
    if gate is not None:
        gate.open()
    await until(lambda: engine.simulator.empty and not engine.servicer.open)
    assert engine.simulator.cache.used == 0


# -- ways out


async def test_a_stream_closed_in_our_line_never_reaches_the_server(kind):
    """Nor is an abort of it sent."""
    engine, gate = kind.gated(max_running=1)
    async with running(engine):
        first = engine.generate(ask("a", [1, 2, 3], max_tokens=9))
        await engine.generate(ask("b", [4, 5, 6])).aclose()
        gate.open()
        await read(first)
        await nothing_left(engine)
        assert len(engine.servicer.requests) == 1
        assert engine.servicer.notes == []


@pytest.mark.parametrize("tokens", [0, 1, 3], ids=["prefill", "first token", "decode"])
@pytest.mark.parametrize("way", ["aclose", "end_choice", "stop"])
async def test_every_way_out_aborts_the_call(kind, way, tokens):
    """By its id, and before the stream is cancelled, wherever the call stands."""
    engine, gate = kind.gated(steps=tokens)
    async with running(engine):
        stream = engine.generate(ask("a", [1, 2, 3], max_tokens=100))
        said = 0
        while said < tokens:
            said += len((await anext(stream)).tokens)
        await until(lambda: engine.servicer.open and gate.waiting.is_set())
        if way == "aclose":
            await stream.aclose()
        elif way == "end_choice":
            stream.end_choice(0)
        else:
            await engine.engine.stop(0)
            with pytest.raises(EngineUnavailable):
                await read(stream)
        await nothing_left(engine, gate)
        assert engine.servicer.notes[0] == "aborted"


async def test_what_the_server_says_of_an_aborted_choice_is_no_word_about_its_sibling(kind):
    """The one is reported cancelled while the other is still being read."""
    kind.server["abort_s"] = 0.05
    engine, gate = kind.gated(steps=2)
    async with running(engine):
        stream = engine.generate(ask("a", [1, 2, 3], n=2, max_tokens=30))
        await until(lambda: len(engine.servicer.open) == 2)
        stream.end_choice(1)
        await engine.heard()
        gate.open()
        assert (await read(stream))[0].finish.generated == 30


async def test_a_call_left_before_the_server_knows_its_id_is_cancelled(kind):
    """An abort that finds nothing is followed by the cancel, which finds it."""
    begins = kind.server["begins"] = asyncio.Event()
    async with running(kind.engine()) as engine:
        stream = engine.generate(ask("a", [1, 2, 3], max_tokens=100))
        await until(lambda: engine.servicer.requests)
        await stream.aclose()
        await until(lambda: len(engine.servicer.notes) == 2)
        begins.set()
        assert engine.servicer.notes == ["abort of nothing", "cancelled"]
        await nothing_left(engine)
        assert engine.simulator.order == []


async def test_a_call_left_while_its_servicer_stands_at_a_yield_is_aborted_all_the_same(
    kind, monkeypatch
):
    """The generator gets GeneratorExit then, at which TensorRT-LLM's aborts nothing."""
    engine, gate = kind.gated()
    async with running(engine):
        servicer, phrases = engine.servicer, engine.engine._phrases

        async def flood(asked, bias):
            servicer._submit(asked, bias)
            chunk = smg.pb.GenerateStreamChunk(token_ids=[1] * 300_000)
            while True:
                yield smg.pb.GenerateResponse(request_id=asked.request_id, chunk=chunk)

        monkeypatch.setattr(servicer, "_run", flood)
        server = Server(engine.address, load_stubs())
        request = ask("a", [1, 2, 3])
        call = server.begin(phrases, phrases.facts.writer.stage(request, 0, []), request)
        assert await call.read()  # and no more: what it sends meanwhile fills the connection
        sent = 0
        while sent != servicer.yields:
            sent = servicer.yields
            await asyncio.sleep(0.2)
        call.leave()
        await server.close()
        await until(lambda: gc.collect() >= 0 and len(servicer.notes) == 2)
        assert servicer.notes == ["aborted", "left at a yield"]
        await nothing_left(engine, gate)


async def test_a_storm_of_streams_closed_anywhere_leaves_nothing(kind):
    """Closed in line, before, among and after their tokens; the others say what they should."""
    random = Random(7)
    async with running(kind.engine(num_blocks=48)) as engine:
        whole = (await read(engine.generate(ask("whole", [1, 2, 3], max_tokens=24))))[0].tokens

        async def client(number):
            stream = engine.generate(ask(f"c{number}", [1, 2, 3], n=1 + number % 2, max_tokens=24))
            said = []
            for _ in range(random.choice([0, 1, 2])):
                event = await anext(stream)
                said += event.tokens if event.choice == 0 else []
            if number % 3:
                await stream.aclose()
            else:
                answers = await read(stream)
                assert said + (answers[0].tokens if 0 in answers else []) == whole

        await asyncio.gather(*(client(number) for number in range(90)))
        await settled(engine, running=0, waiting=0, blocks_used=0, alive=True)
        await nothing_left(engine)


@pytest.mark.parametrize("scores", [None, 1], ids=["its end", "our end"])
async def test_only_a_call_that_the_server_does_not_end_is_aborted(kind, scores):
    """At max_tokens, and where it looks for the stop tokens, it ends by itself."""
    async with running(kind.engine()) as engine:
        whole = (await read(engine.generate(ask("a", [1, 2, 3]))))[0].tokens
        await settled(engine, running=0)
        assert engine.servicer.notes == []
        asked = ask("b", [1, 2, 3], stop_tokens=frozenset({whole[4], END}), logprobs=scores)
        await read(engine.generate(asked))
        await settled(engine, running=0)
        await nothing_left(engine)
        assert bool(engine.servicer.notes) is (scores is not None)


# -- servers that go


async def test_a_dead_executor_fails_every_open_stream_once(kind):
    """All readers get EngineDied after the tokens they were owed, and the owner hears it once."""
    deaths = []
    kind.faults.dies_at = 4
    async with running(kind.engine(on_death=deaths.append)) as engine:
        await _die_under(engine, lambda: None)
        assert ["device lost" in str(death) for death in deaths] == [True]


async def test_a_server_that_goes_mid_stream_fails_every_open_stream_once(kind):
    """The same where the process is gone."""
    deaths = []
    engine, gate = kind.gated(steps=3, on_death=deaths.append)
    async with running(engine):
        await _die_under(engine, lambda: engine.grpc.stop(0))
        assert len(deaths) == 1
        gate.open()


async def _die_under(engine, end):
    streams = [engine.generate(ask(f"s{i}", [1, 2, i], max_tokens=50)) for i in range(12)]
    await anext(streams[0])
    ending = end()
    if ending is not None:
        await ending
    for stream in streams:
        with pytest.raises(EngineDied):
            await read(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert not engine.load().alive
    assert engine.load().running == engine.load().waiting == 0
    with pytest.raises(EngineDied):
        engine.generate(ask("late", [1]))


@pytest.mark.parametrize("how", ["says so", "is silent"])
async def test_an_idle_engine_learns_that_its_server_is_dead(kind, how):
    """Its health is asked for all the time."""
    deaths = []
    async with running(kind.engine(on_death=deaths.append, health_s=0.01)) as engine:
        await asyncio.sleep(0.05)
        assert engine.load().alive
        if how == "says so":
            engine.servicer.trouble = "MpiError: rank 1 is gone"
        else:
            await engine.grpc.stop(0)
        await until(lambda: not engine.load().alive)
        assert [type(death) for death in deaths] == [EngineDied]
