"""The engine contract over the SMG client, against a test server on the published stubs.

It shows that the client does right with what the protocol documents; not that TensorRT-LLM does so.
"""

import asyncio

import pytest

from engines.api import FinishReason, GenerationRequest, RequestId, Sampling
from engines.errors import InvalidRequest, RequestFailed, Unsupported
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

smg = pytest.importorskip("tests.support.smg", reason="needs the SMG stubs: penstock[smg]")
END = smg.END

pytestmark = pytest.mark.anyio


@pytest.fixture
def kind():
    """Makes engines with servers of their own."""
    return smg.Kind()


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


# -- ends


def ending(name, **sampling):
    """A request whose fifth token is the model's end token, unless that is not to end it."""
    return ask(name, [1, 2, 3], bias={END: 90.0}, min_tokens=4, **sampling)


@pytest.mark.parametrize("keeps", [False, True], ids=["taken out", "returned"])
@pytest.mark.parametrize("scores", [None, 2], ids=["plain", "logprobs"])
@pytest.mark.parametrize("ends", [{END}, {END, 498}, set()], ids=["one end", "two", "unknown"])
async def test_the_end_token_is_told_whatever_the_server_does_with_it(kind, ends, scores, keeps):
    """It is the last of the log, has its log-probability, and the finish names it."""
    kind.server["keeps_end"] = keeps
    async with running(kind.engine(ends=frozenset(ends))) as engine:
        asked = ending("a", stop_tokens=frozenset({END, 498}), logprobs=scores)
        answer = (await read(engine.generate(asked)))[0]
        assert len(answer.tokens) == 5
        assert answer.tokens[-1] == answer.finish.stop_token == END
        assert (answer.finish.reason, answer.finish.generated) == (FinishReason.STOP, 5)
        assert len(answer.logprobs) == (5 if scores else 0)
        last = engine.servicer.requests[-1]
        assert last.ignore_eos is not (ends == {END} and scores is None)
        await settled(engine, running=0, blocks_used=0)


async def test_an_end_token_that_nobody_asked_to_stop_at_is_a_token(kind):
    """Without stop tokens, and with others, text goes on behind it."""
    async with running(kind.engine()) as engine:
        for name, stops in (("a", set()), ("b", {498})):
            asked = ask(name, [1], bias={END: 90.0}, max_tokens=6, stop_tokens=frozenset(stops))
            answer = (await read(engine.generate(asked)))[0]
            assert answer.tokens == [END] * 6
            assert answer.finish.reason is FinishReason.LENGTH


@pytest.mark.parametrize(
    "freedom", ["withholds_stop", "ignores_stops", "no_cached_tokens", "late_logprobs", "interval"]
)
async def test_the_log_is_the_same_whatever_freedom_a_server_takes(kind, freedom):
    """Stop tokens kept back but named, stops not looked for, tokens in threes."""
    async with running(kind.engine()) as engine:
        whole = (await read(engine.generate(ask("a", [1, 2, 3], logprobs=2))))[0]
    setattr(kind.faults, freedom, 3 if freedom == "interval" else True)
    stop = whole.tokens[5]
    scores = None if freedom == "withholds_stop" else 2
    async with running(kind.engine()) as engine:
        asked = ask("b", [1, 2, 3], stop_tokens=frozenset({stop, END}), logprobs=scores)
        answer = (await read(engine.generate(asked)))[0]
        assert answer.tokens == whole.tokens[: whole.tokens.index(stop) + 1]
        assert (answer.finish.reason, answer.finish.stop_token) == (FinishReason.STOP, stop)
        assert answer.finish.generated == len(answer.tokens)
        if scores:
            assert answer.logprobs == whole.logprobs[: len(answer.tokens)]
        await settled(engine, running=0, blocks_used=0)


async def test_min_tokens_holds_many_stops_back_and_goes_on_after_them(kind):
    """A ban until then, and the greedy text beyond it as if there had been one call."""
    async with running(kind.engine()) as engine:
        stops = frozenset(range(400))
        asked = ask("a", [1, 2, 3], stop_tokens=stops, min_tokens=6, max_tokens=100)
        answer = (await read(engine.generate(asked)))[0]
        assert not stops & set(answer.tokens[:6])
        assert answer.finish.stop_token == answer.tokens[-1]
        rest = (await read(engine.generate(ask("b", [1, 2, 3, *answer.tokens[:6]]))))[0].tokens
        assert answer.tokens[6:] == rest[: len(answer.tokens) - 6]


# -- what is asked


async def test_log_probabilities_are_those_of_the_tokens_most_likely_first(kind):
    """One per token, in order, as many alternatives as were asked for."""
    async with running(kind.engine()) as engine:
        for most in (0, 3):
            answer = (await read(engine.generate(ask(f"k{most}", [1, 2, 3], logprobs=most))))[0]
            assert len(answer.logprobs) == len(answer.tokens) == 16
            for token, told in zip(answer.tokens, answer.logprobs, strict=True):
                values = [logprob for _, logprob in told.top]
                assert values == sorted(values, reverse=True)
                assert len(told.top) == most
                assert not most or told.top[0] == (token, told.logprob)


async def test_allowed_banned_and_biased_tokens(kind):
    """Nothing else is said than what is allowed; a ban is stronger than a bias."""
    async with running(kind.engine()) as engine:
        allowed, bias = frozenset(range(40, 50)), {41: 90.0, 42: 90.0, 3: 90.0}
        asked = ask("a", [1], allowed=allowed, bad_words=((41,),), bias=bias)
        assert set((await read(engine.generate(asked)))[0].tokens) == {42}


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


async def test_salts_part_the_prefix_cache_where_the_server_honours_them(kind):
    """Else they are refused: TensorRT-LLM's servicer is known to leave the field unread."""
    kind.server["salts"] = True
    prompt, sampling = tuple(range(1, 13)), Sampling(4, temperature=0.0)
    async with running(kind.engine(honours=frozenset({"cache_salt"}))) as engine:
        cached = []
        for name, salt in (("a", b"x"), ("b", b"y"), ("c", b"x")):
            asked = GenerationRequest(RequestId(name), prompt, sampling, cache_salt=salt)
            cached.append((await read(engine.generate(asked)))[0].cached)
        assert cached == [0, 0, 8]
    async with running(kind.engine()) as engine:
        with pytest.raises(Unsupported) as refused:
            engine.generate(GenerationRequest(RequestId("a"), prompt, sampling, cache_salt=b"x"))
        assert refused.value.param == "cache_salt"


@pytest.mark.parametrize(
    ("sampling", "param"),
    [
        ({"bad_words": ((1, 2),)}, "bad_words"),
        ({"min_p": 0.1, "temperature": 1.0}, "min_p"),
        ({"presence": 0.5}, "sampling"),
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


async def test_the_servers_own_queue_stays_empty_and_priority_decides_here(kind):
    """It gets no more than fits its batch, in our order."""
    engine, gate = kind.gated()
    async with running(engine):
        streams = []
        for index, priority in enumerate([0, 0, 0, 0, 0, 0, 0, 0, 5, 5, -5]):
            sampling = Sampling(2, temperature=0.0)
            streams.append(
                engine.generate(
                    GenerationRequest(
                        RequestId(str(index)), (index + 1,), sampling, priority=priority
                    )
                )
            )
        gate.open()
        await asyncio.gather(*(read(stream) for stream in streams))
        order = [prompt[0] for prompt in engine.simulator.order]
        assert order.index(11) < min(order.index(9), order.index(10))
        assert engine.simulator.deepest == 0


# -- what goes wrong with one request


async def test_what_the_server_refuses_is_the_clients_fault(kind):
    """INVALID_ARGUMENT becomes InvalidRequest, with its words."""
    kind.faults.refuses = "prompt is too long"
    async with running(kind.engine()) as engine:
        with pytest.raises(InvalidRequest, match="prompt is too long"):
            await read(engine.generate(ask("a", [1, 2])))
        assert engine.load().alive


async def test_an_error_of_a_healthy_server_fails_that_request_alone(kind):
    """INTERNAL says nothing of whose fault it is, so the server's health is asked."""
    kind.faults.fails_request = 3
    async with running(kind.engine()) as engine:
        with pytest.raises(RequestFailed, match="grammar matcher"):
            await read(engine.generate(ask("a", [1, 2], n=2, max_tokens=9)))
        assert len((await read(engine.generate(ask("b", [1, 2], max_tokens=3))))[0].tokens) == 3
        await settled(engine, running=0, blocks_used=0, alive=True)


async def test_a_request_the_server_gave_up_fails(kind):
    """A finish that nobody asked for is no normal end."""
    kind.faults.gives_up = 2
    async with running(kind.engine()) as engine:
        with pytest.raises(RequestFailed, match="cancelled"):
            await read(engine.generate(ask("a", [1, 2], max_tokens=9)))
