"""The contract of `engines/api.py`, run against every engine there is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from engines.api import Capability, FinishReason
from engines.errors import (
    CapacityExceeded,
    ContextOverflow,
    EngineDied,
    EngineUnavailable,
    InvalidRequest,
    Unsupported,
)
from engines.grammar.compiler import GrammarCompiler
from engines.limits import Limits
from engines.step import StepPlan, StepRunner
from engines.stepped import SteppedEngine
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.engines import Gated, ask, ledger, limits_for, read, running, stepped
from tests.support.grammars import compiler
from tests.support.hosted import Hosted
from tests.support.openvino import INSTALLED, needs_openvino, open_openvino, openvino_runner
from tests.support.tiny_models import by_name, model_dir

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Kind:
    """How to make one kind of engine."""

    runner: Callable[[Limits, GrammarCompiler], StepRunner]
    vocab_size: int
    capabilities: frozenset[Capability]
    block: int = 4
    pool: int = 32  # blocks: too few for eight sequences of six of the smallest blocks
    remote: bool = False

    def limits(self, **changes: int) -> Limits:
        return limits_for(vocab_size=self.vocab_size, block_size=self.block, **changes)

    def engine(self, **changes: int) -> SteppedEngine | Hosted:
        limits = self.limits(**changes)
        grammars = compiler(self.vocab_size)
        return self._over(self.runner(limits, grammars), limits, grammars)

    def gated(self, steps: int = 0) -> tuple[SteppedEngine | Hosted, Gated]:
        limits = self.limits()
        grammars = compiler(self.vocab_size)
        gate = Gated(self.runner(limits, grammars), steps)
        return self._over(gate, limits, grammars), gate

    async def heard(self, engine: SteppedEngine | Hosted) -> None:
        """Wait until what was asked of an engine has reached it."""
        if isinstance(engine, Hosted):
            await engine.heard()

    def _over(self, runner, limits, grammars):
        engine = stepped(limits, lambda _: runner, self.capabilities, grammars)
        return Hosted(engine, limits) if self.remote else engine


@pytest.fixture(scope="session")
def kinds():
    """Every engine that runs here."""
    loaded = open_model(model_dir(by_name("llama")))

    def torch_runner(limits: Limits, grammars: GrammarCompiler) -> TorchRunner:
        return TorchRunner(
            loaded,
            num_blocks=limits.num_blocks,
            block_size=limits.block_size,
            max_lanes=limits.max_running,
            grammars=grammars,
        )

    can = frozenset({Capability.SAMPLING, Capability.GUIDES, Capability.GRAMMAR})
    here = {
        "ledger": Kind(ledger, 500, can),
        "torch": Kind(torch_runner, loaded.facts.vocab_size, frozenset(Capability)),
    }
    if INSTALLED:
        graph = open_openvino(model_dir(by_name("llama")))

        def on_openvino(limits: Limits, grammars: GrammarCompiler) -> StepRunner:
            return openvino_runner(
                graph,
                num_blocks=limits.num_blocks,
                max_lanes=limits.max_running,
                grammars=grammars,
            )

        here["openvino"] = Kind(
            on_openvino, graph.facts.vocab_size, frozenset(Capability), block=32, pool=7
        )
    away = {f"remote {name}": replace(kind, remote=True) for name, kind in here.items()}
    return {**here, **away}


KINDS = [
    pytest.param(f"{where}{name}", marks=needs_openvino if name == "openvino" else ())
    for where in ("", "remote ")
    for name in ("ledger", "torch", "openvino")
]


@pytest.fixture(params=KINDS)
def kind(request, kinds):
    """One engine kind after another."""
    return kinds[request.param]


async def settled(engine, **want):
    """Wait until the engine's load shows these figures."""
    async with asyncio.timeout(10):
        while any(getattr(engine.load(), name) != value for name, value in want.items()):  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_stream_ends_once_with_exact_counts(kind):
    """Ordered events, one finish, `generated` equal to the tokens that came."""
    async with running(kind.engine()) as engine:
        answers = await read(engine.generate(ask("a", [1, 2, 3], max_tokens=9)))
        assert list(answers) == [0]
        assert answers[0].cached == 0
        assert answers[0].finish.reason is FinishReason.LENGTH
        assert answers[0].finish.generated == len(answers[0].tokens) == 9


async def test_a_prefix_that_was_computed_is_reported_as_cached(kind):
    """The second request finds two blocks; two tokens are computed in any case."""
    async with running(kind.engine()) as engine:
        prompt = list(range(1, 2 * kind.block + 3))
        first = await read(engine.generate(ask("a", prompt)))
        again = await read(engine.generate(ask("b", prompt)))
        assert (first[0].cached, again[0].cached) == (0, 2 * kind.block)
        assert first[0].tokens == again[0].tokens


async def test_an_id_used_again_gets_nothing_of_its_former_stream(kind):
    """A step that was in flight when the first stream was closed does not speak to the second."""
    async with running(kind.engine()) as engine:
        control = (await read(engine.generate(ask("a", [1, 2, 3]))))[0].tokens
    engine, gate = kind.gated()
    async with running(engine):
        first = engine.generate(ask("a", [4, 5, 6]))
        assert await asyncio.to_thread(gate.waiting.wait, 10)
        await first.aclose()
        second = engine.generate(ask("a", [1, 2, 3]))
        gate.open()
        assert (await read(second))[0].tokens == control


async def test_a_stop_token_ends_the_choice_and_is_its_last_token(kind):
    """The log holds the stop token; the finish names it."""
    async with running(kind.engine()) as engine:
        whole = (await read(engine.generate(ask("a", [1, 2, 3]))))[0].tokens
        stop = whole[5]
        request = ask("b", [1, 2, 3], stop_tokens=frozenset({stop}))
        answer = (await read(engine.generate(request)))[0]
        assert answer.tokens == whole[: whole.index(stop) + 1]
        assert answer.finish.reason is FinishReason.STOP
        assert answer.finish.stop_token == stop


async def test_min_tokens_holds_the_stop_back(kind):
    """No stop token is said before min_tokens tokens are."""
    async with running(kind.engine()) as engine:
        whole = (await read(engine.generate(ask("a", [1, 2, 3]))))[0].tokens
        request = ask("b", [1, 2, 3], stop_tokens=frozenset({whole[0]}), min_tokens=4)
        answer = (await read(engine.generate(request)))[0]
        assert len(answer.tokens) >= 4
        assert whole[0] not in answer.tokens[:4]


async def test_greedy_text_does_not_depend_on_batch_mates(kind):
    """Many at once say what each says alone, whatever was cached or preempted."""
    prompts = [[index % 7 + 1, 2, 3, 4, index % 3, 5, 6][: 2 + index % 6] for index in range(24)]
    prompts = [[9] * kind.block + prompt * (kind.block // 4) for prompt in prompts]
    async with running(kind.engine()) as engine:
        alone = [
            (await read(engine.generate(ask(f"alone{i}", prompt))))[0].tokens
            for i, prompt in enumerate(prompts)
        ]
    async with running(kind.engine(num_blocks=kind.pool, tokens_per_step=16)) as engine:
        # One by one over HTTP they may come so thinly that nobody needs a block of another.
        for number in range(10):
            streams = [
                engine.generate(ask(f"p{number}.{i}", prompt)) for i, prompt in enumerate(prompts)
            ]
            together = await asyncio.gather(*(read(stream) for stream in streams))
            assert [answers[0].tokens for answers in together] == alone
            if engine.load().preemptions:
                break
        assert engine.load().preemptions > 0
        assert engine.load().prefix_hit_tokens > 0
        await settled(engine, blocks_used=0, running=0, waiting=0)


async def test_choices_share_the_prompt_and_part_after_it(kind):
    """N = 3: three different seeded texts, each what the same seed and choice gives again."""
    async with running(kind.engine()) as engine:
        request = ask("a", [1, 2, 3, 4, 5], n=3, temperature=1.0, seed=7)
        first = await read(engine.generate(request))
        again = await read(engine.generate(request))
        texts = [first[choice].tokens for choice in range(3)]
        assert texts == [again[choice].tokens for choice in range(3)]
        assert len({tuple(text) for text in texts}) == 3


async def test_ending_a_choice_leaves_its_siblings(kind):
    """No event of an ended choice follows; the others run to their end."""
    engine, gate = kind.gated(steps=1)
    async with running(engine):
        stream = engine.generate(ask("a", [1, 2, 3], n=2, temperature=1.0, max_tokens=30))
        await anext(stream)
        stream.end_choice(1)
        await kind.heard(engine)
        gate.allow(2)  # the step that may be in flight, and one that sees the end
        await settled(engine, running=1)
        gate.open()
        rest = await read(stream)
        assert list(rest) == [0]
        assert rest[0].finish is not None
        await settled(engine, blocks_used=0, running=0)


async def test_closing_a_stream_frees_its_blocks_and_silences_it(kind):
    """After aclose nothing more arrives, and one more step at most runs before nothing is held."""
    engine, gate = kind.gated(steps=1)
    async with running(engine):
        stream = engine.generate(ask("a", [1, 2, 3], max_tokens=120))
        await anext(stream)
        await stream.aclose()
        await kind.heard(engine)
        gate.allow()  # the step in flight; a second one would stand at the gate for ever
        await settled(engine, blocks_used=0, running=0, waiting=0)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_closing_while_queued_leaves_nothing(kind):
    """A request that never ran is forgotten as well."""
    async with running(kind.engine(max_running=1)) as engine:
        first = engine.generate(ask("a", [1, 2, 3], max_tokens=100))
        queued = engine.generate(ask("b", [4, 5, 6]))
        await queued.aclose()
        await first.aclose()
        await settled(engine, blocks_used=0, running=0, waiting=0, waiting_tokens=0)


async def test_a_slow_reader_gets_merged_events_and_slows_nobody(kind):
    """A reader that comes late finds one event with all tokens."""
    async with running(kind.engine()) as engine:
        slow = engine.generate(ask("slow", [1, 2, 3], max_tokens=50))
        fast = await read(engine.generate(ask("fast", [4, 5, 6], max_tokens=60)))
        assert len(fast[0].tokens) == 60
        await settled(engine, running=0)
        late = await read(slow)
        assert late[0].events == 1
        assert len(late[0].tokens) == 50


async def test_what_can_never_fit_is_refused_at_once(kind):
    """Each refusal is an InvalidRequest with the number and the limit."""
    blocks = 96 // kind.block
    async with running(kind.engine(num_blocks=blocks)) as engine:
        cases = [
            (ask("a", []), InvalidRequest, "no tokens"),
            (ask("b", [kind.vocab_size]), InvalidRequest, "vocabulary"),
            (ask("c", [1] * 100, max_tokens=29), ContextOverflow, "100 prompt tokens"),
            (ask("d", [1] * 80, max_tokens=18), CapacityExceeded, f"{blocks + 1} KV blocks"),
            (ask("e", [1], n=9), CapacityExceeded, "at most 8"),
            (ask("f", [1], max_tokens=0), InvalidRequest, "max_tokens is 0"),
            (ask("g", [1], logprobs=21), InvalidRequest, "logprobs is 21"),
            (ask("h", [1], logprobs=-1), InvalidRequest, "logprobs is -1"),
            (ask("i", [1], temperature=float("nan")), InvalidRequest, "finite"),
            (
                ask("j", [1], min_tokens=1, stop_tokens=frozenset(range(kind.vocab_size))),
                InvalidRequest,
                "min_tokens",
            ),
        ]
        for request, error, words in cases:
            with pytest.raises(error, match=words):
                engine.generate(request)
        assert engine.load().steps == 0


async def test_adapters_and_extras_that_an_engine_lacks_are_refused(kind):
    """By name; the base model's text for an adapter would be wrong without saying so."""
    async with running(kind.engine()) as engine:
        request = ask("a", [1, 2])
        with pytest.raises(InvalidRequest, match="'poet'") as refused:
            engine.generate(replace(request, adapter="poet"))
        assert refused.value.param == "adapter"
        with pytest.raises(Unsupported, match=r"other\.engine") as refused:
            engine.generate(replace(request, extras={"other.engine": "{}"}))
        assert refused.value.param == "extras"
        assert (engine.load().running, engine.load().waiting) == (0, 0)


async def test_an_id_in_use_is_refused(kind):
    """Two open requests never share an id."""
    async with running(kind.engine()) as engine:
        stream = engine.generate(ask("a", [1, 2]))
        with pytest.raises(InvalidRequest, match="already open"):
            engine.generate(ask("a", [1, 2]))
        await stream.aclose()


async def test_stop_is_idempotent_and_fails_what_is_open(kind):
    """Open streams fail once, new ones are refused, and a second stop changes nothing."""
    engine, gate = kind.gated(steps=3)
    with pytest.raises(EngineUnavailable, match="not started"):
        engine.generate(ask("early", [1]))
    await engine.start()
    with pytest.raises(RuntimeError, match="started once"):
        await engine.start()
    stream = engine.generate(ask("a", [1, 2, 3], max_tokens=120))
    stopping = asyncio.create_task(engine.stop(grace_s=0))
    await asyncio.sleep(0)
    gate.allow(8)  # enough to see the end, and too few to come to it
    await stopping
    gate.open()
    with pytest.raises(EngineUnavailable, match="stopping"):
        await read(stream)
    with pytest.raises(EngineUnavailable, match="stopping"):
        engine.generate(ask("late", [1]))
    await engine.stop(grace_s=0)


async def test_stop_lets_running_requests_end_within_the_grace(kind):
    """A graceful stop loses nothing that can end in time."""
    engine = kind.engine()
    await engine.start()
    reading = asyncio.create_task(read(engine.generate(ask("a", [1, 2, 3], max_tokens=20))))
    await asyncio.sleep(0)
    await engine.stop(grace_s=30)
    assert len((await reading)[0].tokens) == 20


async def test_stop_after_no_start_is_harmless(kind):
    """An engine that never started can be stopped."""
    await kind.engine().stop(grace_s=0)


class _BreaksAt:
    """A runner that fails on its third step."""

    def __init__(self, inner: StepRunner, error: BaseException) -> None:
        self._inner = inner
        self._error = error
        self._steps = 0

    def launch(self, plan: StepPlan) -> object:
        self._steps += 1
        if self._steps == 3:
            raise self._error
        return self._inner.launch(plan)

    def collect(self, ticket: object):
        return self._inner.collect(ticket)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize("error", [RuntimeError("device lost"), SystemExit(3)], ids=repr)
async def test_a_dead_engine_fails_every_open_stream_once(error):
    """All readers get EngineDied after the tokens they were owed; nothing more is accepted."""
    limits = limits_for()
    engine = stepped(limits, lambda limits: _BreaksAt(ledger(limits), error))
    async with running(engine):
        streams = [engine.generate(ask(f"s{i}", [1, 2, i], max_tokens=50)) for i in range(5)]
        for stream in streams:
            with pytest.raises(EngineDied):
                await read(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert not engine.load().alive
        with pytest.raises(EngineDied):
            engine.generate(ask("late", [1]))


async def test_a_capability_that_is_missing_is_refused():
    """A field the engine would have to ignore is an error that names it."""
    async with running(stepped(limits_for())) as engine:
        with pytest.raises(Unsupported, match="logprobs"):
            engine.generate(ask("a", [1], logprobs=2))
        assert engine.load().waiting == 0
