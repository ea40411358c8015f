"""The engine contract over the vLLM adapter, on a stand-in: test_vllm_engine.py runs the real one.

It shows that the adapter does right with what vLLM tells; not that vLLM does so.
"""

import asyncio

import pytest

from engines.api import FinishReason, GenerationRequest, RequestId, Sampling
from engines.errors import EngineDied, InvalidRequest, RequestFailed, Unsupported
from engines.vllm.opening import _ENVIRONMENT, _LOGS
from tests.conformance.test_engine_contract import (  # noqa: F401 - collected here with our `kind`
    settled,
    test_a_prefix_that_was_computed_is_reported_as_cached,
    test_a_slow_reader_gets_merged_events_and_slows_nobody,
    test_a_stop_token_ends_the_choice_and_is_its_last_token,
    test_a_stream_ends_once_with_exact_counts,
    test_adapters_and_extras_that_an_engine_lacks_are_refused,
    test_an_id_in_use_is_refused,
    test_an_id_used_again_gets_nothing_of_its_former_stream,
    test_choices_share_the_prompt_and_part_after_it,
    test_closing_a_stream_frees_its_blocks_and_silences_it,
    test_closing_while_queued_leaves_nothing,
    test_ending_a_choice_leaves_its_siblings,
    test_min_tokens_holds_the_stop_back,
    test_stop_after_no_start_is_harmless,
    test_stop_is_idempotent_and_fails_what_is_open,
    test_stop_lets_running_requests_end_within_the_grace,
    test_what_can_never_fit_is_refused_at_once,
)
from tests.support.engines import ask, read, running
from tests.support.vllm import END, Made, model_directory
from tests.support.vllm_simulator import Faults
from tests.support.vllm_standin import installed

pytestmark = pytest.mark.anyio


@pytest.fixture
def faults():
    """What goes wrong; a test sets it before it makes its engine."""
    return Faults()


@pytest.fixture
def kind(faults, tmp_path, monkeypatch):
    """Makes engines of the stand-in; what is written to the environment is taken back."""
    for name in (*_ENVIRONMENT, *_LOGS[:1]):
        monkeypatch.setenv(name, "1")  # so that it is put back as it was
    made = []
    with installed(faults) as recorder:
        kind = Made(model_directory(tmp_path / "model"), recorder)
        open_engine = kind.engine

        def engine(**changes):
            made.append(open_engine(**changes))
            return made[-1]

        kind.engine = engine
        yield kind
        for each in made:  # a dead one is not shut down; its guardian is
            each._calls._guard.release()


async def test_greedy_text_does_not_depend_on_batch_mates(kind):
    """Many at once say what each says alone, in few blocks, with prefixes shared."""
    prompts = [[index % 7 + 1, 2, 3, 4, index % 3, 5, 6][: 2 + index % 6] for index in range(24)]
    async with running(kind.engine()) as engine:
        alone = [
            (await read(engine.generate(ask(f"alone{i}", prompt))))[0].tokens
            for i, prompt in enumerate(prompts)
        ]
    async with running(kind.engine(num_blocks=32, tokens_per_step=16)) as engine:
        streams = [engine.generate(ask(f"p{i}", prompt)) for i, prompt in enumerate(prompts)]
        together = await asyncio.gather(*(read(stream) for stream in streams))
        assert [answers[0].tokens for answers in together] == alone
        assert engine.load().prefix_hit_tokens > 0
        assert engine.load().steps > 0
        await settled(engine, blocks_used=0, running=0, waiting=0)


async def test_a_dead_engine_fails_every_open_stream_once(kind, faults):
    """All readers get EngineDied after the tokens they were owed, and the process is told."""
    deaths = []
    faults.dies_at = 4
    async with running(kind.engine(on_death=deaths.append)) as engine:
        streams = [engine.generate(ask(f"s{i}", [1, 2, i], max_tokens=50)) for i in range(12)]
        for stream in streams:
            with pytest.raises(EngineDied):
                await read(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert not engine.load().alive
        assert len(deaths) == 1
        with pytest.raises(EngineDied):
            engine.generate(ask("late", [1]))


async def test_an_engine_that_dies_while_idle_is_noticed(kind, monkeypatch):
    """Nobody calls it, so it is asked."""
    monkeypatch.setattr("engines.vllm.engine._HEALTH_S", 0.01)
    died = asyncio.Event()
    async with running(kind.engine(on_death=lambda _: died.set())) as engine:
        assert engine.load().alive
        kind.recorder.engines[-1].errored = True
        async with asyncio.timeout(10):
            await died.wait()
        assert not engine.load().alive


async def test_every_way_out_aborts_the_call_below(kind):
    """A closed stream and an ended choice leave nothing running below; nor does a stop."""
    engine, gate = kind.gated(steps=1)
    simulator = kind.recorder.simulator
    async with running(engine):
        closed = engine.generate(ask("a", [1, 2, 3], n=2, max_tokens=120))
        ended = engine.generate(ask("b", [4, 5, 6], max_tokens=120))
        engine.generate(ask("c", [7, 8, 9], max_tokens=100))
        await anext(closed)
        await closed.aclose()
        ended.end_choice(0)
        await kind.heard(engine)
        gate.allow(2)  # the step in flight, and one that sees the aborts
        async with asyncio.timeout(10):
            while simulator.prompts != [[7, 8, 9]]:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        stopping = asyncio.create_task(engine.stop(grace_s=0))
        await asyncio.sleep(0)
        gate.open()
        await stopping
    assert simulator.empty
    assert simulator.closed


async def test_what_is_left_before_its_generator_has_begun_is_aborted_too(kind, monkeypatch):
    """The generator of vLLM aborts nothing when it is cancelled while it hands the request over."""
    begun, aborted = asyncio.Event(), []
    async with running(kind.engine()) as engine:
        below = kind.recorder.engines[-1]

        async def generate(**call):
            begun.set()
            await asyncio.Event().wait()
            yield call

        async def abort(name):
            aborted.append(name)

        monkeypatch.setattr(below, "generate", generate)
        monkeypatch.setattr(below, "abort", abort)
        stream = engine.generate(ask("a", [1, 2]))
        await begun.wait()
        await stream.aclose()
        await kind.heard(engine)
        await engine._traffic.left(10)
        assert len(aborted) == 1
        assert aborted[0].startswith("a-")


async def test_an_error_of_one_call_fails_that_request_alone(kind, faults):
    """EngineGenerateError says that the engine goes on."""
    faults.fails_request = 3
    async with running(kind.engine()) as engine:
        with pytest.raises(RequestFailed, match="grammar matcher"):
            await read(engine.generate(ask("a", [1, 2], n=2, max_tokens=9)))
        assert len((await read(engine.generate(ask("b", [1, 2], max_tokens=3))))[0].tokens) == 3
        await settled(engine, running=0, blocks_used=0, alive=True)


async def test_what_vllm_refuses_or_would_change_is_the_clients_fault(kind, faults):
    """With its words; a value that it would change is named."""
    async with running(kind.engine()) as engine:
        with pytest.raises(InvalidRequest, match=r"vLLM would make temperature 0\.01") as refused:
            await read(engine.generate(ask("a", [1, 2], temperature=0.001)))
        assert refused.value.param == "temperature"
        with pytest.raises(InvalidRequest, match="must be in"):
            await read(engine.generate(ask("b", [1, 2], temperature=2.5)))
        faults.refuses = "prompt is too long"
        with pytest.raises(InvalidRequest, match="prompt is too long"):
            await read(engine.generate(ask("c", [1, 2])))
        assert engine.load().alive


async def test_a_request_that_vllm_gave_up_fails(kind, faults):
    """A finish that nobody asked for is no normal end."""
    faults.gives_up = 2
    async with running(kind.engine()) as engine:
        with pytest.raises(RequestFailed, match="abort"):
            await read(engine.generate(ask("a", [1, 2], max_tokens=9)))


async def test_a_request_goes_on_where_another_engine_stopped(kind):
    """The rest of each choice, token for token; counts are of the whole."""
    async with running(kind.engine()) as engine:
        whole = await read(engine.generate(ask("a", [1, 2, 3], max_tokens=12)))
        tokens = whole[0].tokens
        sampling = Sampling(max_tokens=12, temperature=0.0)
        emitted = (tuple(tokens[:5]), None, ())
        rest = GenerationRequest(RequestId("b"), (1, 2, 3), sampling, 3, emitted=emitted)
        answers = await read(engine.generate(rest))
        said = {choice: answer.tokens for choice, answer in answers.items()}
        assert said == {0: tokens[5:], 2: tokens}
        assert answers[0].finish.generated == 12


@pytest.mark.parametrize("more", [set(), {END}], ids=["by a ban and a second call", "in vLLM"])
async def test_min_tokens_holds_many_stops_back_and_goes_on_after_them(kind, more):
    """The greedy text beyond it as if nothing had been held back."""
    async with running(kind.engine()) as engine:
        stops = frozenset({*range(400), *more})
        asked = ask("a", [1, 2, 3], stop_tokens=stops, min_tokens=6, max_tokens=100)
        answer = (await read(engine.generate(asked)))[0]
        assert not stops & set(answer.tokens[:6])
        assert answer.finish.reason is FinishReason.STOP
        rest = (await read(engine.generate(ask("b", [1, 2, 3, *answer.tokens[:6]]))))[0].tokens
        assert answer.tokens[6:] == rest[: len(answer.tokens) - 6]


async def test_priority_decides_who_is_handed_over_first(kind):
    """Our line orders what waits; the engine's own queue stays empty."""
    engine, gate = kind.gated()
    async with running(engine):
        streams = []
        for index, priority in enumerate([0, 0, 0, 0, 0, 0, 0, 0, 5, 5, -5]):
            sampling = Sampling(2, temperature=0.0)
            asked = GenerationRequest(
                RequestId(str(index)), (index + 1,), sampling, priority=priority
            )
            streams.append(engine.generate(asked))
        gate.open()
        await asyncio.gather(*(read(stream) for stream in streams))
        order = [prompt[0] for prompt in kind.recorder.simulator.order]
        assert order.index(11) < min(order.index(9), order.index(10))
        assert kind.recorder.simulator.deepest == 0


async def test_salts_part_the_prefix_cache(kind):
    """One tenant's prompt is not found by another."""
    prompt, sampling = tuple(range(1, 13)), Sampling(4, temperature=0.0)
    async with running(kind.engine()) as engine:
        cached = []
        for name, salt in (("a", b"x"), ("b", b"y"), ("c", b"x")):
            asked = GenerationRequest(RequestId(name), prompt, sampling, cache_salt=salt)
            cached.append((await read(engine.generate(asked)))[0].cached)
        assert cached == [0, 0, 8]


async def test_prompt_log_probabilities_that_are_left_out_fail_the_request(kind):
    """Never an answer with less than was asked for."""
    async with running(kind.engine()) as engine:
        with pytest.raises(RequestFailed, match="of the prompt"):
            await read(engine.generate(ask("a", [1, 2], prompt_logprobs=1)))


async def test_what_it_cannot_do_is_refused_by_name(kind):
    """Never ignored."""
    async with running(kind.engine()) as engine:
        with pytest.raises(Unsupported, match="grammar"):
            engine.generate(ask("a", [1], grammar="start: /a/"))
        assert engine.load().waiting == 0


def test_an_error_of_no_known_kind_is_the_engines(kind):
    """What nobody understands is not gone on with."""
    engine = kind.engine()
    calls = engine._calls
    assert calls.meaning(KeyError("what")) is None
    kind.recorder.engines[-1].errored = True
    assert calls.meaning(ValueError("of a dead engine")) is None
