"""The engine contract over the TensorRT-LLM adapter, on a stand-in of each supported version.

It shows that the adapter does right with what upstream documents; not that upstream does so.
"""

import asyncio

import pytest

from engines.api import FinishReason, GenerationRequest, RequestId, Sampling
from engines.errors import EngineDied, InvalidRequest, RequestFailed, Unsupported
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
from tests.support.trtllm import Made, model_directory
from tests.support.trtllm_standin.facts import VERSIONS
from tests.support.trtllm_standin.package import installed
from tests.support.trtllm_standin.simulator import Faults

pytestmark = pytest.mark.anyio


@pytest.fixture(params=VERSIONS)
def version(request):
    """One version after another."""
    return request.param


@pytest.fixture
def faults():
    """What goes wrong; a test sets it before it makes its engine."""
    return Faults()


@pytest.fixture
def kind(version, faults, tmp_path):
    """Makes engines of the version."""
    with installed(version, faults=faults) as recorder:
        yield Made(model_directory(tmp_path / "model"), recorder)


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
        assert [str(death) for death in deaths] == ["device lost"]
        with pytest.raises(EngineDied):
            engine.generate(ask("late", [1]))


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
    assert simulator.cache.used == 0
    assert simulator.closed


async def test_a_stream_of_the_past_does_not_end_one_with_its_id(kind):
    """A late failure of the first concerns the first alone."""
    async with running(kind.engine()) as engine:
        first = engine.generate(ask("a", [1, 2, 3]))
        await first.aclose()
        second = engine.generate(ask("a", [1, 2, 3]))
        engine._traffic._fail(first, RequestFailed("late"))
        assert len((await read(second))[0].tokens) == 16


async def test_a_request_error_fails_that_request_alone(kind, faults):
    """The class of that name, wherever upstream has it, ends one request and no engine."""
    faults.fails_request = 3
    async with running(kind.engine()) as engine:
        with pytest.raises(RequestFailed, match="grammar matcher"):
            await read(engine.generate(ask("a", [1, 2], n=2, max_tokens=9)))
        assert len((await read(engine.generate(ask("b", [1, 2], max_tokens=3))))[0].tokens) == 3
        assert engine.load().alive
        await settled(engine, running=0, blocks_used=0)


async def test_what_the_engine_refuses_at_once_is_the_clients_fault(kind, faults):
    """A ValueError of generate_async becomes InvalidRequest with its words."""
    faults.refuses = "prompt is too long"
    async with running(kind.engine()) as engine:
        with pytest.raises(InvalidRequest, match="prompt is too long"):
            await read(engine.generate(ask("a", [1, 2])))
        assert engine.load().alive


async def test_a_request_the_engine_gave_up_fails(kind, faults):
    """A finish that nobody asked for is no normal end."""
    faults.gives_up = 2
    async with running(kind.engine()) as engine:
        with pytest.raises(RequestFailed, match="cancelled"):
            await read(engine.generate(ask("a", [1, 2], max_tokens=9)))


@pytest.mark.parametrize(
    "freedom", ["withholds_stop", "ignores_stops", "no_cached_tokens", "late_logprobs", "interval"]
)
async def test_the_log_is_the_same_whatever_freedom_a_version_takes(kind, faults, freedom):
    """Stop tokens kept back, stops not looked for, tokens in threes: the reader sees no other."""
    async with running(kind.engine()) as engine:
        whole = (await read(engine.generate(ask("a", [1, 2, 3], logprobs=2))))[0]
    setattr(faults, freedom, 3 if freedom == "interval" else True)
    stop = whole.tokens[5]
    scores = None if freedom == "withholds_stop" else 2
    async with running(kind.engine()) as engine:
        asked = ask("b", [1, 2, 3], stop_tokens=frozenset({stop, 498}), logprobs=scores)
        answer = (await read(engine.generate(asked)))[0]
        assert answer.tokens == whole.tokens[: whole.tokens.index(stop) + 1]
        assert (answer.finish.reason, answer.finish.stop_token) == (FinishReason.STOP, stop)
        assert answer.finish.generated == len(answer.tokens)
        if scores:
            assert answer.logprobs == whole.logprobs[: len(answer.tokens)]
        await settled(engine, running=0, blocks_used=0)


async def test_a_stop_that_is_neither_returned_nor_named_is_known_when_it_is_the_only_one(
    kind, faults
):
    """With several candidates the log cannot be told, and the request fails rather than guess."""
    async with running(kind.engine()) as engine:
        whole = (await read(engine.generate(ask("a", [1, 2, 3]))))[0].tokens
        faults.withholds_stop = faults.untold_stop = True
        one = ask("b", [1, 2, 3], stop_tokens=frozenset({whole[4]}))
        assert (await read(engine.generate(one)))[0].tokens == whole[: whole.index(whole[4]) + 1]
        several = frozenset({whole[4], 498})
        with pytest.raises(RequestFailed, match="did not tell"):
            await read(engine.generate(ask("c", [1, 2, 3], stop_tokens=several)))


async def test_log_probabilities_are_those_of_the_tokens_most_likely_first(kind):
    """One per token, in order, the sampled one's among them where it is likely."""
    async with running(kind.engine()) as engine:
        for most in (0, 3):
            asked = ask(f"k{most}", [1, 2, 3], logprobs=most)
            answer = (await read(engine.generate(asked)))[0]
            assert len(answer.logprobs) == len(answer.tokens) == 16
            for token, told in zip(answer.tokens, answer.logprobs, strict=True):
                assert [logprob for _, logprob in told.top] == sorted(
                    (logprob for _, logprob in told.top), reverse=True
                )
                assert len(told.top) == most
                assert not most or told.top[0] == (token, told.logprob)


async def test_allowed_banned_and_biased_tokens(kind):
    """Nothing else is said than what is allowed; a ban is stronger than a bias."""
    async with running(kind.engine()) as engine:
        allowed = frozenset(range(40, 50))
        asked = ask(
            "a", [1], allowed=allowed, bad_words=((41,),), bias={41: 90.0, 42: 90.0, 3: 90.0}
        )
        assert set((await read(engine.generate(asked)))[0].tokens) == {42}


async def test_a_request_goes_on_where_another_engine_stopped(kind):
    """The rest of each choice, token for token; counts are of the whole."""
    async with running(kind.engine()) as engine:
        whole = await read(engine.generate(ask("a", [1, 2, 3], max_tokens=12)))
        tokens = whole[0].tokens
        sampling = Sampling(max_tokens=12, temperature=0.0)
        rest = GenerationRequest(
            RequestId("b"), (1, 2, 3), sampling, 3, emitted=(tuple(tokens[:5]), None, ())
        )
        answers = await read(engine.generate(rest))
        assert {choice: answer.tokens for choice, answer in answers.items()} == {
            0: tokens[5:],
            2: tokens,
        }
        assert answers[0].finish.generated == 12
        assert answers[0].cached == 3  # of the prompt; an emitted token was cached as well


async def test_min_tokens_holds_many_stops_back_and_goes_on_after_them(kind):
    """A ban until then, and the greedy text beyond it as if there had been one call."""
    async with running(kind.engine()) as engine:
        stops = frozenset(range(400))
        asked = ask("a", [1, 2, 3], stop_tokens=stops, min_tokens=6, max_tokens=100)
        answer = (await read(engine.generate(asked)))[0]
        assert not stops & set(answer.tokens[:6])
        assert answer.finish.stop_token == answer.tokens[-1]
        assert not stops & set(answer.tokens[6:-1])
        rest = (await read(engine.generate(ask("b", [1, 2, 3, *answer.tokens[:6]]))))[0].tokens
        assert answer.tokens[6:] == rest[: len(answer.tokens) - 6]
        assert answer.finish.generated == len(answer.tokens)


async def test_salts_part_the_prefix_cache(kind):
    """One tenant's prompt is not found by another."""
    prompt = tuple(range(1, 13))
    async with running(kind.engine()) as engine:
        cached = []
        for name, salt in (("a", b"x"), ("b", b"y"), ("c", b"x")):
            asked = GenerationRequest(
                RequestId(name), prompt, Sampling(4, temperature=0.0), cache_salt=salt
            )
            cached.append((await read(engine.generate(asked)))[0].cached)
        assert cached == [0, 0, 8]


async def test_priority_decides_who_is_handed_over_first(kind):
    """Our line orders what waits; the engine's own queue stays empty."""
    engine, gate = kind.gated()
    async with running(engine):
        streams = []
        for index, priority in enumerate([0, 0, 0, 0, 0, 0, 0, 0, 5, 5, -5]):
            asked = GenerationRequest(
                RequestId(str(index)), (index + 1,), Sampling(2, temperature=0.0), priority=priority
            )
            streams.append(engine.generate(asked))
        gate.open()
        await asyncio.gather(*(read(stream) for stream in streams))
        order = [prompt[0] for prompt in kind.recorder.simulator.order]
        assert order.index(11) < min(order.index(9), order.index(10))
        assert kind.recorder.simulator.deepest == 0


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        ({"bad_words": ((1, 2),)}, "bad_words"),
        ({"prompt_logprobs": 1}, "sampling"),
        ({"grammar": "start: /a/"}, "sampling"),
    ],
)
async def test_what_it_cannot_do_is_refused_by_name(kind, sampling, param):
    """Never ignored."""
    async with running(kind.engine()) as engine:
        with pytest.raises(Unsupported) as refused:
            engine.generate(ask("a", [1], **sampling))
        assert refused.value.param == param
        assert engine.load().waiting == 0
