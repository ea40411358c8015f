"""Guides and grammars on every stepped engine: what is asked for is all that is ever said."""

import asyncio
import json
import threading
from itertools import pairwise

import pytest
from llguidance import LLParserLimits

from engines.api import Capability, FinishReason, ThinkingBudget
from engines.errors import InvalidRequest, RequestFailed, Unsupported
from engines.grammar import bounds
from engines.grammar import compiler as compiling
from engines.limits import Limits
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.engines import ask, ledger, limits_for, read, running, stepped
from tests.support.grammars import END, TOKENIZER, compiler, json_grammar, regex_grammar, text
from tests.support.openvino import needs_openvino, open_openvino, openvino_runner
from tests.support.tiny_models import by_name, model_dir

pytestmark = pytest.mark.anyio

GUIDED = frozenset({Capability.SAMPLING, Capability.GUIDES, Capability.GRAMMAR})
PERSON = json_grammar(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "kind": {"enum": ["first kind", "second kind"]},
            "ages": {"type": "array", "items": {"type": "integer", "maximum": 99, "minimum": 0},
                     "maxItems": 3},
        },
        "required": ["name", "kind", "ages"],
        "additionalProperties": False,
    }
)  # fmt: skip
ENDS = {"stop_tokens": frozenset({END})}


@pytest.fixture(scope="session")
def loaded():
    return open_model(model_dir(by_name("llama")))


@pytest.fixture(params=["ledger", "torch", pytest.param("openvino", marks=needs_openvino)])
def make(request, loaded):
    """Engines of one kind after another; `make.vocab` is their vocabulary."""

    def one(**changes):
        limits = limits_for(vocab_size=one.vocab, block_size=one.block, **changes)
        grammars = compiler(one.vocab)
        return stepped(limits, lambda limits: one.runner(limits, grammars), one.can, grammars)

    def torch_runner(limits: Limits, grammars) -> TorchRunner:
        return TorchRunner(
            loaded,
            num_blocks=limits.num_blocks,
            block_size=limits.block_size,
            max_lanes=limits.max_running,
            grammars=grammars,
        )

    def on_openvino(limits: Limits, grammars):
        return openvino_runner(
            open_openvino(model_dir(by_name("llama"))),
            num_blocks=limits.num_blocks,
            max_lanes=limits.max_running,
            grammars=grammars,
        )

    runners = {"ledger": ledger, "torch": torch_runner, "openvino": on_openvino}
    one.can = GUIDED if request.param == "ledger" else frozenset(Capability)
    one.vocab = 500 if request.param == "ledger" else 512
    one.block = 32 if request.param == "openvino" else 4
    one.pool = 8 if request.param == "openvino" else 36  # too few for all at once
    one.runner = runners[request.param]
    return one


def person(tokens):
    """The object that tokens say; raises for anything else."""
    value = json.loads(text(tokens))
    assert list(value) == ["name", "kind", "ages"]
    return value


async def test_a_grammar_holds_at_any_temperature(make):
    """Each seed says something else, all of it valid, and the end is told as a stop."""
    async with running(make()) as engine:
        streams = [
            engine.generate(
                ask(f"r{seed}", [1, 2, seed], temperature=2.0, seed=seed, max_tokens=100,
                    grammar=PERSON, **ENDS)
            )
            for seed in range(12)
        ]  # fmt: skip
        answers = [answer[0] for answer in await asyncio.gather(*map(read, streams))]
    for answer in answers:
        person(answer.tokens)
        assert answer.finish.reason is FinishReason.STOP
        assert (answer.finish.stop_token, answer.tokens[-1]) == (END, END)
        assert answer.finish.generated == len(answer.tokens)
    assert len({text(answer.tokens) for answer in answers}) > 8


async def test_forced_tokens_save_steps(make):
    """More tokens than events: what the grammar leaves no choice about comes at once."""
    async with running(make()) as engine:
        answer = (await read(engine.generate(ask("a", [1, 2], max_tokens=90, grammar=PERSON))))[0]
        assert person(answer.tokens)
        assert engine.load().steps < len(answer.tokens) - 10


async def test_greedy_text_under_a_grammar_does_not_depend_on_batch_mates_or_preemption(make):
    """Alone with room, and many in a pool too small for them: the same tokens."""
    prompts = [[index % 7 + 1, 2, 3, index % 5][: 2 + index % 3] for index in range(12)]
    asks = [
        {"max_tokens": 80, **ENDS, "grammar": PERSON},
        {"max_tokens": 30, "allowed": frozenset(range(60, 90)), "bad_words": ((61,), (62, 63))},
        {"max_tokens": 30, "thinking": ThinkingBudget(9, (), (4, 5)), **ENDS},
        {"max_tokens": 30},
    ]

    def streams(engine):
        return [
            engine.generate(ask(f"r{i}", prompt, **asks[i % 4])) for i, prompt in enumerate(prompts)
        ]

    async with running(make()) as engine:
        alone = []
        for index, prompt in enumerate(prompts):
            stream = engine.generate(ask(f"r{index}", prompt, **asks[index % 4]))
            alone.append((await read(stream))[0].tokens)
    async with running(make(num_blocks=make.pool, tokens_per_step=16)) as engine:
        together = await asyncio.gather(*map(read, streams(engine)))
        assert engine.load().preemptions > 0
    assert [answers[0].tokens for answers in together] == alone
    for tokens in alone[::4]:
        person(tokens)


async def test_choices_follow_the_grammar_each_on_its_own(make):
    """N = 4: each valid, parted after the prompt, and again the same with the same seed."""
    async with running(make()) as engine:
        request = ask("a", [1, 2, 3], n=4, temperature=1.5, seed=5, max_tokens=90, grammar=PERSON)
        first, again = [await read(engine.generate(request)) for _ in range(2)]
    texts = [first[choice].tokens for choice in range(4)]
    assert texts == [again[choice].tokens for choice in range(4)]
    assert len({json.dumps(person(tokens)) for tokens in texts}) > 1


async def test_allowed_tokens_are_all_that_is_said_whatever_is_biased(make):
    """A bias cannot bring a token in, and temperature cannot either."""
    bias = {"bias": {7: 100.0}} if Capability.LOGIT_BIAS in make.can else {}
    allowed = frozenset({70, 71, 72})
    async with running(make()) as engine:
        request = ask("a", [1, 2], temperature=3.0, allowed=allowed, max_tokens=60, **bias)
        answer = (await read(engine.generate(request)))[0]
    assert set(answer.tokens) == allowed


async def test_bad_words_are_never_completed(make):
    """Neither the single token nor the pair, though the pair's parts still come."""
    allowed = frozenset({70, 71, 72, 73})
    async with running(make()) as engine:
        request = ask("a", [1, 2], temperature=3.0, max_tokens=100, allowed=allowed,
                      bad_words=((72,), (70, 71)))  # fmt: skip
        tokens = (await read(engine.generate(request)))[0].tokens
    assert set(tokens) == {70, 71, 73}
    assert (70, 71) not in set(pairwise(tokens))


async def test_a_thinking_budget_ends_thinking(make):
    """After so many tokens the end is said, and the answer goes on."""
    async with running(make()) as engine:
        request = ask("a", [1, 2], max_tokens=20, thinking=ThinkingBudget(6, (), (40, 41)),
                      temperature=1.0)  # fmt: skip
        tokens = (await read(engine.generate(request)))[0].tokens
    assert tokens[6:8] == [40, 41]
    assert len(tokens) == 20


@pytest.mark.parametrize(
    "sampling",
    [{"min_tokens": 60, **ENDS}, {"stop_tokens": frozenset()}, {"bad_words": ((END,),), **ENDS}],
    ids=["min_tokens", "ignore_eos", "bad_words"],
)
async def test_the_end_of_a_finished_grammar_wins(make, sampling):
    """Nothing else is left to say, so what would hold the end back gives way."""
    async with running(make()) as engine:
        request = ask("a", [1], max_tokens=60, grammar=regex_grammar("abc|xyz"), **sampling)
        answer = (await read(engine.generate(request)))[0]
    assert text(answer.tokens) in ("abc", "xyz")
    assert answer.finish.stop_token == END


async def test_an_unwanted_end_waits_until_the_grammar_leaves_nothing_else(make):
    """With ignore_eos a grammar that could end goes on to its limit."""
    async with running(make()) as engine:
        request = ask("a", [1], max_tokens=60, grammar=regex_grammar("[0-9]{1,20}"))
        answer = (await read(engine.generate(request)))[0]
    assert len(text(answer.tokens)) == 20


async def test_a_clients_stop_token_ends_a_guided_answer(make):
    """Cut where the client asked for it, also where the token would have been forced."""
    comma = TOKENIZER.token_to_id(",")
    async with running(make()) as engine:
        request = ask("a", [1], max_tokens=90, grammar=PERSON,
                      stop_tokens=frozenset({END, comma}))  # fmt: skip
        answer = (await read(engine.generate(request)))[0]
    assert answer.finish.stop_token == comma == answer.tokens[-1]
    assert text(answer.tokens).startswith('{"name":"')


async def test_length_cuts_a_grammar_and_says_so(make):
    """Forced tokens stop at max_tokens like any others."""
    async with running(make()) as engine:
        for limit in range(1, 12):
            request = ask(f"r{limit}", [1], max_tokens=limit, grammar=PERSON)
            answer = (await read(engine.generate(request)))[0]
            assert len(answer.tokens) == limit == answer.finish.generated
            assert answer.finish.reason is FinishReason.LENGTH


@pytest.mark.parametrize("source", ["start: nothing", json_grammar({"if": {}})])
async def test_a_grammar_that_cannot_be_compiled_fails_its_stream(make, source):
    """An InvalidRequest naming the grammar, and nothing left behind."""
    async with running(make()) as engine:
        stream = engine.generate(ask("a", [1], grammar=source))
        with pytest.raises(InvalidRequest) as caught:
            await read(stream)
        assert caught.value.param == "grammar"
        assert (await read(engine.generate(ask("a", [1]))))[0].finish is not None
        assert engine.load().waiting == 0


async def test_a_request_can_be_closed_while_its_grammar_is_compiled(make, monkeypatch):
    """Wholly or one choice of it; the engine thread never hears of what was closed."""
    gate = threading.Event()
    real = compiling.compiled

    def slow(source, vocabulary):
        assert gate.wait(20)
        return real(source, vocabulary)

    monkeypatch.setattr(compiling, "compiled", slow)
    async with running(make()) as engine:
        closed = engine.generate(ask("a", [1, 2], grammar=PERSON))
        halved = engine.generate(ask("b", [1, 2], n=2, max_tokens=90, grammar=PERSON))
        plain = engine.generate(ask("c", [3, 4], max_tokens=3))
        assert len((await read(plain))[0].tokens) == 3, "others wait for the compiler"
        await closed.aclose()
        halved.end_choice(0)
        reused = engine.generate(ask("a", [1, 2], max_tokens=90, grammar=PERSON))
        gate.set()
        answers = await read(halved)
        assert list(answers) == [1]
        person(answers[1].tokens)
        person((await read(reused))[0].tokens)
        assert engine.load().blocks_used == 0


async def test_stopping_while_a_grammar_is_compiled_fails_its_stream(make, monkeypatch):
    """And a stop does not wait for the compiler."""
    gate = threading.Event()
    monkeypatch.setattr(compiling, "compiled", lambda *_: gate.wait(20))
    engine = make()
    await engine.start()
    stream = engine.generate(ask("a", [1], grammar=PERSON))
    async with asyncio.timeout(10):
        await engine.stop(grace_s=0)
    gate.set()
    with pytest.raises(Exception, match="stopping"):
        await read(stream)


async def test_a_guide_that_fails_takes_only_its_own_request_with_it(make, monkeypatch):
    """A limit met while sampling, and guides that contradict each other: the others go on."""
    real = bounds.parser_limits
    monkeypatch.setattr(compiling, "parser_limits", _tight)
    async with running(make()) as engine:
        other = engine.generate(ask("other", [1, 2, 3], max_tokens=60))
        limited = engine.generate(ask("limited", [1], n=2, max_tokens=60, grammar=PERSON))
        with pytest.raises(RequestFailed, match="the grammar cannot go on"):
            await read(limited)
        monkeypatch.setattr(compiling, "parser_limits", real)
        torn = engine.generate(
            ask("torn", [1], grammar=regex_grammar("[0-9]+"), allowed=frozenset({9}), **ENDS)
        )
        with pytest.raises(RequestFailed, match="allowed"):
            await read(torn)
        again = engine.generate(ask("again", [1], max_tokens=90, grammar=PERSON))
        person((await read(again))[0].tokens)
        assert len((await read(other))[0].tokens) == 60
        assert engine.load().alive


def _tight():
    return LLParserLimits(max_items_in_row=2, verbose_errors=False)


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"allowed": frozenset({9999})}, "none of the allowed"),
        ({"bad_words": ((1,), ())}, "no tokens"),
        ({"thinking": ThinkingBudget(-1, (), (3,))}, "is -1"),
        ({"thinking": ThinkingBudget(1, (), ())}, "end of thinking"),
        ({"thinking": ThinkingBudget(1, (9999,), (3,))}, "end of thinking"),
        ({"prompt_logprobs": 21}, "prompt_logprobs is 21"),
    ],
    ids=str,
)
async def test_guides_that_cannot_work_are_refused_at_once(make, sampling, words):
    """Each names its parameter."""
    async with running(make()) as engine:
        with pytest.raises(InvalidRequest, match=words) as caught:
            engine.generate(ask("a", [1], **sampling))
        assert caught.value.param == next(iter(sampling))


async def test_an_engine_without_a_compiler_takes_no_grammar():
    """Refused by name, and an engine that claims to take them must have one."""
    async with running(stepped(limits_for())) as engine:
        with pytest.raises(Unsupported, match="grammar"):
            engine.generate(ask("a", [1], grammar=PERSON))
        with pytest.raises(Unsupported, match="guides"):
            engine.generate(ask("a", [1], allowed=frozenset({1})))
    with pytest.raises(ValueError, match="compiler"):
        stepped(limits_for(), ledger, frozenset({Capability.GRAMMAR}))
