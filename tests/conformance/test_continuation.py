"""A stream that is cut anywhere goes on elsewhere as if it had not been: token for token."""

import asyncio
from dataclasses import replace

import pytest

from engines.api import Capability, GenerationRequest, RequestId, ThinkingBudget
from engines.errors import RequestFailed
from engines.grammar.compiler import GrammarCompiler
from engines.grammar.vocabulary import read_vocabulary
from engines.limits import Limits
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from gateway.model_directory import read_text_side
from tests.support.engines import Answer, ask, ledger, limits_for, read, running, stepped
from tests.support.grammars import END, TOKENIZER, compiler, json_grammar, regex_grammar
from tests.support.live import TOKENIZER_DIR
from tests.support.tiny_models import by_name, model_dir

pytestmark = pytest.mark.anyio

PERSON = json_grammar(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "kind": {"enum": ["first kind", "second kind"]},
            "ages": {"type": "array", "items": {"enum": [7, 17, 77]}, "maxItems": 3},
        },
        "required": ["name", "kind", "ages"],
        "additionalProperties": False,
    }
)
ENDS = frozenset({END})
BRACE = TOKENIZER.token_to_id("}")
WARM = {"temperature": 1.5, "seed": 11}

CASES = {
    "greedy": {},
    "one token of prompt": {"prompt": [5]},
    "seeded": WARM,
    "truncated": {**WARM, "top_k": 9, "top_p": 0.9, "min_p": 0.01},
    "bad words": {"bad_words": ((70,), (71, 72), (71, 71)), "allowed": frozenset(range(70, 76))},
    "bad words by chance": {
        **WARM, "bad_words": ((70, 71, 70), (73, 73)), "allowed": frozenset({70, 71, 73}),
    },
    "min tokens": {"stop_tokens": frozenset(range(60, 400)), "min_tokens": 9},
    "stop tokens": {**WARM, "stop_tokens": frozenset(range(0, 500, 23)), "max_tokens": 60},
    "thinking": {"thinking": ThinkingBudget(6, (), (40, 41, 42)), **WARM},
    "thinking with a beginning": {
        "thinking": ThinkingBudget(4, (70, 71), (73, 70, 73)),
        "allowed": frozenset({70, 71, 73}), **WARM, "max_tokens": 40,
    },
    "grammar": {"grammar": PERSON, "max_tokens": 90, "stop_tokens": ENDS},
    "grammar by chance": {"grammar": PERSON, "max_tokens": 90, "stop_tokens": ENDS, **WARM},
    "grammar without end": {"grammar": regex_grammar("(ab|cd){9}"), "max_tokens": 60, **WARM},
    "grammar cut short": {"grammar": PERSON, "max_tokens": 13, **WARM},
    "grammar with a stop in it": {
        "grammar": PERSON, "max_tokens": 90, "stop_tokens": ENDS | {BRACE}, **WARM,
    },
    "grammar and thinking": {
        "grammar": PERSON, "max_tokens": 90, "stop_tokens": ENDS,
        "thinking": ThinkingBudget(5, (), (TOKENIZER.token_to_id("k"),)), **WARM,
    },
    "grammar and bad words": {
        "grammar": PERSON, "max_tokens": 90, "stop_tokens": ENDS, "bad_words": ((BRACE,),), **WARM,
    },
}  # fmt: skip
TORCH_CASES = {
    "penalties": {"presence": 1.5, "frequency": 0.7, "repetition": 1.3, "bias": {70: 2.0}},
    "penalties by chance": {"frequency": 1.1, "repetition": 0.8, **WARM, "top_p": 0.95},
    "logprobs": {"logprobs": 4, **WARM},
    "grammar with logprobs": {
        "grammar": PERSON, "max_tokens": 90, "stop_tokens": ENDS, "logprobs": 2, **WARM,
    },
}  # fmt: skip
LOADED = ["ledger", "torch"]


@pytest.fixture(scope="session")
def loaded():
    return open_model(model_dir(by_name("llama")))


@pytest.fixture(params=LOADED)
def make(request, loaded):
    """Engines of one kind after another, each fresh; `make.all` says whether it can do all."""

    def one(**changes):
        limits = limits_for(vocab_size=vocab, **changes)
        grammars = compiler(vocab)
        return stepped(limits, lambda limits: runner(limits, grammars), can, grammars)

    def torch_runner(limits: Limits, grammars) -> TorchRunner:
        return TorchRunner(
            loaded,
            num_blocks=limits.num_blocks,
            block_size=limits.block_size,
            max_lanes=limits.max_running,
            grammars=grammars,
        )

    one.all = request.param == "torch"
    few = frozenset({Capability.SAMPLING, Capability.GUIDES, Capability.GRAMMAR})
    runner, vocab, can = (
        (torch_runner, 512, frozenset(Capability)) if one.all else (ledger, 500, few)
    )
    return one


async def whole(make, asked: GenerationRequest) -> dict[int, Answer]:
    """The undisturbed answer."""
    async with running(make()) as engine:
        return await read(engine.generate(asked))


def going_on(asked: GenerationRequest, name: str, logs) -> GenerationRequest:
    """The rest of a request after these logs."""
    emitted = tuple(None if log is None else tuple(log) for log in logs)
    return replace(asked, id=RequestId(name), emitted=emitted)


async def rest(engine, asked: GenerationRequest) -> dict[int, Answer]:
    return await read(engine.generate(asked))


def same(control: Answer, cut: int, after: Answer) -> None:
    """What came before the cut and after it is the control, bit for bit."""
    assert control.tokens[:cut] + after.tokens == control.tokens, cut
    assert control.logprobs[:cut] + after.logprobs == control.logprobs, cut
    assert after.finish == control.finish, cut


@pytest.mark.parametrize("case", [*CASES, *TORCH_CASES])
async def test_a_stream_cut_at_any_token_goes_on_as_it_would_have(make, case):
    """On a fresh engine for every cut, also within the tokens that a grammar forced."""
    if case in TORCH_CASES and not make.all:
        pytest.skip("the ledger offers none of it")
    values = {"prompt": [1, 2, 3, 4, 5, 6, 7], "max_tokens": 24, **{**CASES, **TORCH_CASES}[case]}
    asked = ask("a", values.pop("prompt"), **values)
    control = (await whole(make, asked))[0]
    for cut in range(len(control.tokens)):
        async with running(make()) as engine:
            resumed = going_on(asked, "b", [control.tokens[:cut]])
            after = (await rest(engine, resumed))[0]
            assert engine.load().blocks_used == 0
        same(control, cut, after)


async def test_streams_cut_at_any_token_go_on_together(make):
    """All cuts at once, in a pool too small for them: prefix hits and preemption change nothing."""
    asked = ask("a", [1, 2, 3, 4, 5], max_tokens=40, **WARM)
    control = (await whole(make, asked))[0]
    resumed = [
        replace(going_on(asked, f"r{cut}", [control.tokens[:cut]]), cache_salt=bytes([cut % 5]))
        for cut in range(40)
    ]
    async with running(make(num_blocks=40, tokens_per_step=16)) as engine:
        answers = await asyncio.gather(*(rest(engine, one) for one in resumed))
        assert engine.load().prefix_hit_tokens > 0
        assert engine.load().preemptions > 0
    for cut, answer in enumerate(answers):
        same(control, cut, answer[0])


@pytest.mark.parametrize("case", ["seeded", "grammar by chance", "logprobs"])
async def test_choices_cut_at_different_tokens_go_on_each_from_its_own(make, case):
    """Two choices, cut apart; where the cut is a choice's end, it stays ended."""
    if case in TORCH_CASES and not make.all:
        pytest.skip("the ledger offers none of it")
    values = {"max_tokens": 24, **{**CASES, **TORCH_CASES}[case]}
    asked = ask("a", [1, 2, 3, 4, 5, 6, 7], n=2, **values)
    control = await whole(make, asked)
    lengths = [len(control[choice].tokens) for choice in range(2)]
    for cut in range(1 + max(lengths)):
        for ahead in (0, 1, 5, 100):
            cuts = [min(cut, lengths[0]), min(cut + ahead, lengths[1])]
            if cuts == lengths:
                continue
            logs = [
                None if at == end else control[choice].tokens[:at]
                for choice, (at, end) in enumerate(zip(cuts, lengths, strict=True))
            ]
            async with running(make()) as engine:
                after = await rest(engine, going_on(asked, "b", logs))
            assert sorted(after) == [choice for choice in range(2) if logs[choice] is not None]
            for choice, answer in after.items():
                same(control[choice], cuts[choice], answer)


async def test_prompt_scores_are_told_to_those_who_have_heard_nothing(make):
    """A choice that had said something has told them; one that had not still does."""
    if not make.all:
        pytest.skip("the ledger scores no prompts")
    asked = ask("a", [1, 2, 3, 4, 5, 6, 7], n=2, prompt_logprobs=2, logprobs=1, max_tokens=6)
    control = await whole(make, asked)
    async with running(make()) as engine:
        after = await rest(engine, going_on(asked, "b", [control[0].tokens[:2], ()]))
    assert after[0].prompt_logprobs is None
    assert after[1].prompt_logprobs == control[1].prompt_logprobs != []
    same(control[0], 2, after[0])
    same(control[1], 0, after[1])


async def test_a_choice_that_goes_on_can_be_ended(make):
    """No event of it follows, and the other runs to its end."""
    asked = ask("a", [1, 2, 3], n=2, max_tokens=24, **WARM)
    control = await whole(make, asked)
    async with running(make()) as engine:
        logs = [control[0].tokens[:5], control[1].tokens[:9]]
        stream = engine.generate(going_on(asked, "b", logs))
        stream.end_choice(0)
        after = await read(stream)
        assert list(after) == [1]
        same(control[1], 9, after[1])


async def test_a_cut_within_forced_tokens_keeps_their_spelling():
    """Where the grammar forces a text, its other spellings are possible, but were never a choice.

    Over a vocabulary of real merges, where most words can be said in several ways.
    """
    tokenizer = read_text_side(TOKENIZER_DIR).tokenizer
    vocab, end = tokenizer.vocab_size, max(tokenizer.special_tokens)
    source = (TOKENIZER_DIR / "tokenizer.json").read_text()
    limits = limits_for(vocab_size=vocab)

    def make():
        grammars = GrammarCompiler(read_vocabulary(source, vocab, {end}))
        can = frozenset({Capability.SAMPLING, Capability.GRAMMAR})
        return stepped(limits, lambda limits: ledger(limits, grammars), can, grammars)

    grammar = json_grammar({"enum": ["the first of these words", "the second of those words"]})
    asked = ask("a", [1, 2, 3], grammar=grammar, max_tokens=90, stop_tokens=frozenset({end}))
    control = (await whole(make, asked))[0]
    for cut in range(len(control.tokens)):
        async with running(make()) as engine:
            after = (await rest(engine, going_on(asked, "b", [control.tokens[:cut]])))[0]
        same(control, cut, after)
    assert control.events < len(control.tokens) / 2, "little was forced"


async def test_what_a_grammar_cannot_have_said_fails_its_own_request(make):
    """The engine and its other streams go on."""
    asked = ask("a", [1, 2], grammar=PERSON, max_tokens=90)
    async with running(make()) as engine:
        other = engine.generate(ask("other", [1, 2, 3], max_tokens=30))
        with pytest.raises(RequestFailed, match="the grammar cannot go on"):
            await rest(engine, going_on(asked, "b", [[BRACE, BRACE]]))
        assert len((await read(other))[0].tokens) == 30
