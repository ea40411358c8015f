"""The engine contract over a real vLLM, on a CPU: `make test-vllm`.

vLLM pins a torch of its own, so it has an environment of its own; elsewhere all is skipped.
"""

import asyncio
import math
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from engines.api import Capability, FinishReason, GenerationRequest, RequestId, Sampling
from engines.errors import (
    CapacityExceeded,
    ContextOverflow,
    InvalidRequest,
    Unsupported,
)
from tests.conformance.test_engine_contract import (  # noqa: F401 - collected here with our `kind`
    settled,
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
)
from tests.conformance.test_trtllm_storm import expected, one, some_request
from tests.support.engines import ask, read, running
from tests.support.tiny_models import by_name, greedy_truth, model_dir, prompts

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # of its imports
    pytest.mark.timeout(300),
]

MODEL = by_name("llama-mqa-wide-heads")  # vLLM's attention on CPUs wants heads of 32 and more
END = 2  # of that model
BLOCK = 32


@pytest.fixture(scope="module")
async def kind():
    """Makes engines over one vLLM."""
    reason = "vllm is not installed: make test-vllm, in an environment of its own"
    pytest.importorskip("vllm", reason=reason, exc_type=ImportError)
    from tests.support.vllm_real import made  # noqa: PLC0415

    loaded = made(model_dir(MODEL))
    yield loaded
    loaded.close()


# -- cases of the contract whose figures are those of small blocks


async def test_a_prefix_that_was_computed_is_reported_as_cached(kind):
    """The second request over 70 tokens finds two blocks of 32."""
    prompt = [3 + index % 50 for index in range(70)]
    async with running(kind.engine()) as engine:
        first = await read(engine.generate(ask("a", prompt)))
        again = await read(engine.generate(ask("b", prompt)))
        assert (first[0].cached, again[0].cached) == (0, 2 * BLOCK)
        assert first[0].tokens == again[0].tokens
        assert engine.load().prefix_hit_tokens == 2 * BLOCK


async def test_what_can_never_fit_is_refused_at_once(kind):
    """Each refusal is an InvalidRequest with the number and the limit."""
    async with running(kind.engine(num_blocks=2)) as engine:
        steps = engine.load().steps
        cases = [
            (ask("a", []), InvalidRequest, "no tokens"),
            (ask("b", [kind.vocab_size]), InvalidRequest, "vocabulary"),
            (ask("c", [1] * 100, max_tokens=29), ContextOverflow, "100 prompt tokens"),
            (ask("d", [1] * 60, max_tokens=10), CapacityExceeded, "3 KV blocks"),
            (ask("e", [1], n=9), CapacityExceeded, "at most 8"),
            (ask("f", [1], max_tokens=0), InvalidRequest, "max_tokens is 0"),
            (ask("g", [1], logprobs=21), InvalidRequest, "logprobs is 21"),
            (ask("i", [1], temperature=float("nan")), InvalidRequest, "finite"),
        ]
        for request, error, words in cases:
            with pytest.raises(error, match=words):
                engine.generate(request)
        assert engine.load().steps == steps


async def test_greedy_text_does_not_depend_on_batch_mates(kind):
    """Many at once say what each says alone, with prefixes shared, and what transformers says."""
    starts = prompts(24, longest=60)
    truth = greedy_truth(model_dir(MODEL), starts, 24)
    async with running(kind.engine()) as engine:
        alone = [
            (await read(engine.generate(ask(f"alone{i}", start, max_tokens=24))))[0].tokens
            for i, start in enumerate(starts)
        ]
        assert alone == truth
        streams = [
            engine.generate(ask(f"p{i}", start, max_tokens=24)) for i, start in enumerate(starts)
        ]
        together = await asyncio.gather(*(read(stream) for stream in streams))
        assert [answers[0].tokens for answers in together] == truth
        assert engine.load().prefix_hit_tokens > 0
        await settled(engine, blocks_used=0, running=0, waiting=0)


# -- what a request may ask


@pytest.mark.parametrize("stops", [{END}, set()], ids=["with the end token", "without it"])
async def test_min_tokens_holds_many_stops_back(kind, stops):
    """By vLLM's own means, or by a call in which they are banned and a second behind it."""
    stops = frozenset({*range(10, 400), *stops})
    async with running(kind.engine()) as engine:
        asked = ask("a", [1, 2, 3], stop_tokens=stops, min_tokens=6, max_tokens=60)
        answer = (await read(engine.generate(asked)))[0]
        assert not stops & set(answer.tokens[:6])
        assert answer.finish.stop_token == answer.tokens[-1]
        assert not stops & set(answer.tokens[6:-1])
        assert answer.finish.generated == len(answer.tokens)
        rest = (await read(engine.generate(ask("b", [1, 2, 3, *answer.tokens[:6]]))))[0].tokens
        assert answer.tokens[6:] == rest[: len(answer.tokens) - 6]


async def test_the_models_end_token_is_a_token_where_nobody_asked_to_stop_at_it(kind):
    """Without stop tokens, and with others, text goes on behind it."""
    async with running(kind.engine()) as engine:
        for name, stops in (("a", set()), ("b", {498})):
            asked = ask(name, [1], bias={END: 90.0}, max_tokens=6, stop_tokens=frozenset(stops))
            answer = (await read(engine.generate(asked)))[0]
            assert answer.tokens == [END] * 6
            assert answer.finish.reason is FinishReason.LENGTH


async def test_log_probabilities_are_those_of_the_model(kind):
    """Of each token, and of as many alternatives as asked for: transformers says the same."""
    model = AutoModelForCausalLM.from_pretrained(model_dir(MODEL), dtype=torch.float32).eval()
    prompt = [5, 9, 301, 77, 12]
    async with running(kind.engine()) as engine:
        for most in (0, 3):
            asked = ask(f"k{most}", prompt, logprobs=most, prompt_logprobs=most, bias={7: 5.0})
            answer = (await read(engine.generate(asked)))[0]
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *answer.tokens]])).logits[0]
            truth = logits.log_softmax(-1)
            told = [*answer.prompt_logprobs, *answer.logprobs]
            tokens = [*prompt[1:], *answer.tokens]
            assert len(told) == len(tokens) == 20
            for row, token, each in zip(truth, tokens, told, strict=False):
                assert each.logprob == pytest.approx(float(row[token]), abs=1e-4)
                best = row.topk(most) if most else None
                assert [t for t, _ in each.top] == ([] if best is None else best.indices.tolist())
            assert (await read(engine.generate(replace_id(asked, "again"))))[0].cached == 0


def replace_id(request, name):
    """The same request under another name."""
    return GenerationRequest(RequestId(name), request.prompt, request.sampling)


async def test_allowed_banned_and_biased_tokens(kind):
    """Nothing else is said than what is allowed; a ban is stronger than a bias."""
    async with running(kind.engine()) as engine:
        allowed, bias = frozenset(range(40, 50)), {41: 90.0, 42: 90.0, 3: 90.0}
        asked = ask("a", [1], allowed=allowed, bad_words=((41,),), bias=bias)
        assert set((await read(engine.generate(asked)))[0].tokens) == {42}


async def test_a_bad_word_of_several_tokens_is_never_completed(kind):
    """Only its last token is banned, and only behind the others."""
    async with running(kind.engine()) as engine:
        whole = (await read(engine.generate(ask("a", [1, 2, 3]))))[0].tokens
        asked = ask("b", [1, 2, 3], bad_words=((whole[3], whole[4]),))
        other = (await read(engine.generate(asked)))[0].tokens
        assert other[:4] == whole[:4]
        assert other[4] != whole[4]


def penalised(prompt, new, *, presence=0.0, frequency=0.0, repetition=1.0):
    """Greedy tokens under penalties, by the port's words, over transformers' logits."""
    model = AutoModelForCausalLM.from_pretrained(model_dir(MODEL), dtype=torch.float32).eval()
    said: list[int] = []
    for _ in range(new):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *said]])).logits[0, -1]
        for token in {*prompt, *said}:
            logits[token] *= 1 / repetition if logits[token] > 0 else repetition
        for token in set(said):
            logits[token] -= presence + frequency * said.count(token)
        said.append(int(logits.argmax()))
    return said


@pytest.mark.parametrize(
    "penalties",
    [
        {"presence": 2.0},
        {"frequency": -1.5},
        {"frequency": 1.0, "presence": 1.0},
        {"repetition": 1.4},
        {"repetition": 0.7},
    ],
    ids=repr,
)
async def test_penalties_are_those_of_the_port(kind, penalties):
    """Presence and frequency of the output alone; repetition of the prompt as well."""
    prompt = [385, 147, 418, 385, 75, 455, 210]
    expected = penalised(prompt, 40, **penalties)
    async with running(kind.engine()) as engine:
        asked = ask("a", prompt, max_tokens=40, **penalties)
        assert (await read(engine.generate(asked)))[0].tokens == expected
        plain = (await read(engine.generate(ask("b", prompt, max_tokens=40))))[0].tokens
        assert plain == penalised(prompt, 40) != expected


@pytest.mark.parametrize(
    "sampling",
    [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 0.02}],
    ids=lambda given: next(iter(given)),
)
async def test_what_narrows_the_distribution_to_one_token_is_greedy(kind, sampling):
    """Each by itself, under a seed that draws something else without it."""
    async with running(kind.engine()) as engine:
        greedy = (await read(engine.generate(ask("a", [1, 2, 3]))))[0].tokens
        free = ask("b", [1, 2, 3], temperature=1.0, seed=5)
        assert (await read(engine.generate(free)))[0].tokens != greedy
        narrow = {"temperature": 1.0, "seed": 5, **sampling}
        assert (await read(engine.generate(ask("c", [1, 2, 3], **narrow))))[0].tokens == greedy


async def test_a_request_goes_on_where_another_engine_stopped(kind):
    """The rest of each choice, token for token; counts are of the whole."""
    async with running(kind.engine()) as engine:
        tokens = (await read(engine.generate(ask("a", [1, 2, 3], max_tokens=12))))[0].tokens
        sampling = Sampling(max_tokens=12, temperature=0.0)
        emitted = (tuple(tokens[:5]), None, ())
        rest = GenerationRequest(RequestId("b"), (1, 2, 3), sampling, 3, emitted=emitted)
        answers = await read(engine.generate(rest))
        said = {choice: answer.tokens for choice, answer in answers.items()}
        assert said == {0: tokens[5:], 2: tokens}
        assert answers[0].finish.generated == 12


async def test_salts_part_the_prefix_cache(kind):
    """One tenant's prompt is not found by another."""
    prompt, sampling = tuple(range(100, 140)), Sampling(4, temperature=0.0)
    async with running(kind.engine()) as engine:
        cached = []
        for name, salt in (("a", b"x"), ("b", b"y"), ("c", b"x")):
            asked = GenerationRequest(RequestId(name), prompt, sampling, cache_salt=salt)
            cached.append((await read(engine.generate(asked)))[0].cached)
        assert cached == [0, 0, BLOCK]


async def test_vllm_is_given_no_more_than_it_can_begin_with(kind):
    """Its own queue stays shallow, which is what its statistics say; all come to their end."""
    deepest = 0
    async with running(kind.engine()) as engine:
        observe = engine._stats.observed

        def watching(stats):
            nonlocal deepest
            deepest = max(deepest, stats.queued)
            observe(stats)

        engine._stats.observed = watching
        streams = [engine.generate(ask(f"s{i}", [i + 3] * 20)) for i in range(40)]
        assert engine.load().waiting > 0
        answers = await asyncio.gather(*(read(stream) for stream in streams))
        assert all(len(answer[0].tokens) == 16 for answer in answers)
        assert engine.load().steps > 16
        assert deepest <= 8


async def test_what_vllm_refuses_or_would_change_is_the_clients_fault(kind):
    """With its words, and the engine lives."""
    async with running(kind.engine()) as engine:
        for name, sampling, words in (
            ("hot", {"temperature": 2.5}, "temperature"),
            ("cold", {"temperature": 0.001}, "vLLM would make temperature 0.01"),
            ("penalty", {"presence": 3.0}, "presence_penalty"),
        ):
            with pytest.raises(InvalidRequest, match=words):
                await read(engine.generate(ask(name, [1], **sampling)))
        assert len((await read(engine.generate(ask("b", [1]))))[0].tokens) == 16
        await settled(engine, running=0, blocks_used=0, alive=True)


async def test_a_closed_stream_is_aborted_in_vllm(kind):
    """Whatever it was doing: nothing of it is left in the output processor below."""
    async with running(kind.engine()) as engine:
        control = (await read(engine.generate(ask("control", [1, 2, 3]))))[0].tokens
        for reads in (0, 1, 3):
            streams = [engine.generate(ask(f"s{i}", [1, i + 5], max_tokens=100)) for i in range(8)]
            for stream in streams:
                for _ in range(reads):
                    await anext(stream)
                await stream.aclose()
            await settled(engine, running=0, waiting=0, blocks_used=0)
            async with asyncio.timeout(10):
                while engine._calls._llm.get_num_unfinished_requests():  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
        assert (await read(engine.generate(ask("again", [1, 2, 3]))))[0].tokens == control


async def test_a_storm_leaves_right_texts_and_nothing_else(kind):
    """200 requests over 8 places, a third of whose readers go away."""
    chance = random.Random(11)
    requests = [some_request(chance, index) for index in range(200)]
    async with running(kind.engine()) as engine:
        plain = {
            request.id: await expected(engine, request)
            for request in requests
            if not request.sampling.min_tokens
        }
    async with running(kind.engine(num_blocks=20)) as engine:
        tasks = [one(engine, request, random.Random(request.id)) for request in requests]
        for request, answers in zip(requests, await asyncio.gather(*tasks), strict=True):
            assert set(answers) in (set(), set(range(request.n)))
            for answer in answers.values():
                assert answer.finish.generated == len(answer.tokens)
                if request.id in plain:
                    assert answer.tokens == plain[request.id]
        await settled(engine, running=0, waiting=0, waiting_tokens=0, blocks_used=0)
        assert not engine._traffic._runs
        async with asyncio.timeout(10):
            while engine._calls._llm.get_num_unfinished_requests():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("sampling", "param"),
    [({"grammar": "start: /a/"}, "sampling"), ({"bad_words": ((1,),), "allowed": {1}}, "allowed")],
)
async def test_what_it_cannot_do_is_refused_by_name(kind, sampling, param):
    """This model has no tokenizer, and grammars are of texts."""
    async with running(kind.engine()) as engine:
        assert engine.info.capabilities == frozenset(Capability) - {Capability.GRAMMAR}
        refusal = InvalidRequest if param == "allowed" else Unsupported
        with pytest.raises(refusal) as refused:
            engine.generate(ask("a", [1], **sampling))
        assert refused.value.param == param
        assert math.isclose(engine.load().waiting, 0)
