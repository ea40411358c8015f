"""A real model on two replicas, one of which dies at any step: tokens and their scores."""

import asyncio

import pytest

from engines.api import Capability
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.engines import ask, limits_for, read, running, stepped
from tests.support.grammars import END, compiler, json_grammar
from tests.support.replicas import Dying, fleet, read_until
from tests.support.tiny_models import by_name, model_dir

pytestmark = pytest.mark.anyio

WARM = {"temperature": 1.0, "seed": 5}
ANSWER = json_grammar({"enum": ["first kind", "second kind", "third"]})
# (request, choices that are ended after so many tokens)
MIX = [
    (ask("greedy", [1, 2, 3], max_tokens=16), {}),
    (ask("scored", [4, 5], n=2, max_tokens=14, logprobs=3, prompt_logprobs=2, **WARM), {}),
    (ask("ended", [6, 7, 8], n=2, max_tokens=14, logprobs=0, **WARM), {1: 4}),
    (ask("penalised", [9, 9], max_tokens=14, frequency=0.8, repetition=1.2, **WARM), {}),
    (ask("guided", [3], max_tokens=40, grammar=ANSWER, stop_tokens=frozenset({END}), **WARM), {}),
]


@pytest.fixture(scope="module")
def models():
    """One for each replica: an engine hooks into its module, and has it to itself."""
    return {name: open_model(model_dir(by_name("llama"))) for name in "ab"}


@pytest.mark.parametrize("step", range(1, 15, 2))
async def test_a_model_may_die_at_any_step(models, step):
    """Every stream is its undisturbed control, log-probabilities bit for bit."""

    def engine(name, at=None):
        limits, grammars = limits_for(vocab_size=512), compiler(512)
        runner = TorchRunner(
            models[name],
            num_blocks=limits.num_blocks,
            block_size=limits.block_size,
            max_lanes=limits.max_running,
            grammars=grammars,
        )
        return stepped(limits, lambda _: Dying(runner, at), frozenset(Capability), grammars)

    async with running(engine("a")) as alone:
        want = await asyncio.gather(*(read(alone.generate(request)) for request, _ in MIX))
    async with fleet(lambda name, *_: engine(name, step if name == "a" else None), "ab") as own:
        streams = [(own.replicas.generate(request), ends) for request, ends in MIX]
        got = await asyncio.gather(*(read_until(stream, ends) for stream, ends in streams))
        assert own.replicas.counters.migrations > 0
        assert own.replicas.counters.lost == 0
    for (_, ends), control, answers in zip(MIX, want, got, strict=True):
        assert set(answers) == set(control)
        for choice, answer in answers.items():
            told = len(answer.tokens)
            assert answer.tokens == control[choice].tokens[:told]
            assert answer.logprobs == control[choice].logprobs[: len(answer.logprobs)]
            assert len(answer.logprobs) in (0, told)
            assert answer.prompt_logprobs == control[choice].prompt_logprobs
            assert told >= ends.get(choice, len(control[choice].tokens))
            assert choice in ends or answer.finish == control[choice].finish
