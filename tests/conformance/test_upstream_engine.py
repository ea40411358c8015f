"""The contract of `engines/api.py` over an OpenAI-compatible server, and what is its own."""

import asyncio
from dataclasses import dataclass, replace
from random import Random

import pytest

from engines.api import Capability, GenerationRequest, RequestId, Sampling
from engines.errors import CapacityExceeded, ContextOverflow, InvalidRequest, Unsupported
from tests.conformance.test_engine_contract import (
    Kind,
    kinds,
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
    test_greedy_text_does_not_depend_on_batch_mates,
    test_min_tokens_holds_the_stop_back,
    test_stop_after_no_start_is_harmless,
    test_stop_is_idempotent_and_fails_what_is_open,
    test_stop_lets_running_requests_end_within_the_grace,
)
from tests.support.engines import Gated, ask, limits_for, read, running, stepped
from tests.support.grammars import compiler
from tests.support.upstreams import Fronted

pytestmark = pytest.mark.anyio

__all__ = [
    "kinds",
    "test_a_prefix_that_was_computed_is_reported_as_cached",
    "test_a_slow_reader_gets_merged_events_and_slows_nobody",
    "test_a_stop_token_ends_the_choice_and_is_its_last_token",
    "test_a_stream_ends_once_with_exact_counts",
    "test_adapters_and_extras_that_an_engine_lacks_are_refused",
    "test_an_id_in_use_is_refused",
    "test_an_id_used_again_gets_nothing_of_its_former_stream",
    "test_choices_share_the_prompt_and_part_after_it",
    "test_closing_a_stream_frees_its_blocks_and_silences_it",
    "test_closing_while_queued_leaves_nothing",
    "test_ending_a_choice_leaves_its_siblings",
    "test_greedy_text_does_not_depend_on_batch_mates",
    "test_min_tokens_holds_the_stop_back",
    "test_stop_after_no_start_is_harmless",
    "test_stop_is_idempotent_and_fails_what_is_open",
    "test_stop_lets_running_requests_end_within_the_grace",
]


@dataclass(frozen=True)
class Over:
    """An engine kind behind our own server."""

    inner: Kind

    @property
    def vocab_size(self):
        return self.inner.vocab_size

    @property
    def block(self):
        return self.inner.block

    @property
    def pool(self):
        return self.inner.pool

    def engine(self, **changes):
        return Fronted(self.inner.engine(**changes))

    def gated(self, steps=0):
        limits = limits_for(vocab_size=self.vocab_size)
        grammars = compiler(self.vocab_size)
        gate = Gated(self.inner.runner(limits, grammars), steps)
        inner = stepped(limits, lambda _: gate, self.inner.capabilities, grammars)
        return Fronted(inner, gate=gate), gate

    async def heard(self, engine):
        await engine.heard()


@pytest.fixture(params=["ledger", "torch"])
def kind(request, kinds):
    """Both engines of ours, each behind a server."""
    return Over(kinds[request.param])


async def test_what_can_never_fit_or_be_said_is_refused_at_once(kind):
    """Before anything is sent: the length is known from /models; of blocks nothing is known."""
    async with running(kind.engine()) as engine:
        sent = engine.inner.load().steps
        cases = [
            (ask("a", []), InvalidRequest, "no tokens"),
            (ask("b", [kind.vocab_size]), InvalidRequest, "vocabulary"),
            (ask("c", [1] * 100, max_tokens=29), ContextOverflow, "100 prompt tokens"),
            (ask("e", [1], n=9), CapacityExceeded, "at most 8"),
            (ask("f", [1], max_tokens=0), InvalidRequest, "max_tokens is 0"),
            (ask("g", [1], logprobs=21), InvalidRequest, "logprobs is 21"),
            (ask("h", [1], prompt_logprobs=1), Unsupported, "prompt_logprobs"),
            (ask("i", [1], grammar="start: /a/"), Unsupported, "grammar"),
            (ask("j", [1], bad_words=((1,),)), Unsupported, "bad words"),
        ]
        for request, error, words in cases:
            with pytest.raises(error, match=words):
                engine.generate(request)
        assert engine.inner.load().steps == sent


async def direct_and_fronted(kind, *requests):
    """The answers of an engine itself, and those through a server before it."""
    async with running(kind.inner.engine()) as engine:
        direct = [await read(engine.generate(request)) for request in requests]
    async with running(kind.engine()) as engine:
        fronted = [await read(engine.generate(request)) for request in requests]
    return direct, fronted


def told(answers):
    return [(a.tokens, a.finish, a.logprobs) for answer in answers for a in answer.values()]


async def test_an_answer_is_what_the_engine_behind_says(kind):
    """Token for token: greedy, seeded, narrowed, with stop tokens and allowed ones."""
    requests = [
        ask("greedy", [1, 2, 3]),
        ask("seeded", [1, 2, 3], temperature=1.0, seed=-7, top_k=50, top_p=0.9, min_p=0.01),
        ask("allowed", [4, 5], temperature=0.5, seed=1, allowed=frozenset({7, 8, 9})),
        ask("stopped", [4, 5], min_tokens=3, stop_tokens=frozenset(range(9, 60))),
    ]
    direct, fronted = await direct_and_fronted(kind, *requests)
    assert told(direct) == told(fronted)


async def test_log_probabilities_and_penalties_come_through(kinds):
    """Of each token, the stop token too, as the torch engine tells them."""
    requests = [
        ask("likely", [1, 2, 3], logprobs=3, max_tokens=6),
        ask("own", [1, 2, 3], logprobs=0, temperature=1.0, seed=3, max_tokens=6),
        ask("stopped", [1, 2, 3], logprobs=2, stop_tokens=frozenset(range(9, 500, 8))),
        ask("penalised", [1, 2, 3], presence=1.5, frequency=0.5, repetition=1.3),
        ask("biased", [1, 2, 3], bias={5: 100.0, 7: -3.0}, logprobs=1),
    ]
    direct, fronted = await direct_and_fronted(Over(kinds["torch"]), *requests)
    for (tokens, finish, logprobs), got in zip(told(direct), told(fronted), strict=True):
        assert (tokens, finish) == got[:2]
        assert [entry.logprob for entry in logprobs] == pytest.approx(
            [entry.logprob for entry in got[2]]
        )
        assert [[token for token, _ in entry.top] for entry in logprobs] == [
            [token for token, _ in entry.top] for entry in got[2]
        ]


async def test_a_greedy_choice_goes_on_where_another_engine_was(kind):
    """The same tokens, counted in all; the repetition penalty looks at prompt and answer alike."""
    more = {"repetition": 1.2} if Capability.PENALTIES in kind.inner.capabilities else {}
    async with running(kind.engine()) as engine:
        whole = (await read(engine.generate(ask("a", [1, 2, 3], **more))))[0]
        emitted = (tuple(whole.tokens[:7]), None, ())
        request = replace(ask("b", [1, 2, 3], n=3, **more), emitted=emitted)
        rest = await read(engine.generate(request))
        assert rest[0].tokens == whole.tokens[7:]
        assert rest[2].tokens == whole.tokens
        assert rest[0].finish == rest[2].finish == whole.finish
        assert 1 not in rest


async def test_min_tokens_count_what_was_emitted(kind):
    """A stop token may come as soon as it might have come without the change."""
    async with running(kind.engine()) as engine:
        request = ask("a", [1, 2, 3], min_tokens=6, stop_tokens=frozenset(range(1, 500, 8)))
        whole = (await read(engine.generate(request)))[0]
        emitted = (tuple(whole.tokens[:4]),)
        rest = await read(engine.generate(replace(request, emitted=emitted)))
        assert whole.tokens[:4] + rest[0].tokens == whole.tokens


async def leaves(engine, random, name):
    """A request that is read to some place, and then left in one of three ways."""
    asked = ask(name, [random.randrange(1, 400) for _ in range(random.randrange(1, 20))], n=2)
    stream = engine.generate(asked)
    for _ in range(random.randrange(4)):
        await anext(stream, None)
    match random.randrange(3):
        case 0:
            stream.end_choice(0)
            rest = await read(stream)
            assert rest.get(0) is None
        case 1:
            await stream.aclose()
        case 2:
            await read(stream)


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_streams_that_are_left_leaves_nothing(kinds, seed):
    """Whoever left and when: neither side holds a stream, a block or a task in the end."""
    random = Random(seed)
    async with running(Over(kinds["ledger"]).engine()) as engine:
        async with asyncio.timeout(30):
            await asyncio.gather(*(leaves(engine, random, f"s{i}") for i in range(60)))
        await settled(engine, running=0, waiting=0, blocks_used=0)
        load = engine.outer.load()
        assert (load.running, load.waiting, load.waiting_tokens) == (0, 0, 0)
        async with asyncio.timeout(10):
            while engine.outer._tasks:  # noqa: ASYNC110 - a test waits for a fact
                await asyncio.sleep(0.001)
        assert engine.outer._slots._value == engine.info.max_running


async def test_a_salt_parts_prefixes():
    """What is cached for one salt is not found for another."""
    inner = stepped(limits_for())
    async with running(Fronted(inner)) as engine:
        prompt = tuple(range(1, 11))
        salted = [
            GenerationRequest(RequestId(name), prompt, Sampling(4, temperature=0.0), cache_salt=s)
            for name, s in (("a", b"s"), ("b", b"t"), ("c", b"s"))
        ]
        answers = [await read(engine.generate(request)) for request in salted]
        assert [answer[0].cached for answer in answers] == [0, 0, 8]
        assert engine.outer.load().prefix_hit_tokens == 8
