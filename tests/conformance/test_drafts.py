"""Speculation changes nothing but the time: every runner's tokens and scores, with and without.

The model has been given few tokens to say, by bias, so that its text repeats and drafts are right.
"""

import asyncio
from dataclasses import replace

import pytest

from engines.api import Capability, EngineInfo, GenerationRequest, RequestId, Sampling
from engines.limits import Limits
from engines.stepped import SteppedEngine
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner
from tests.support.tiny_models import VOCAB, by_name, model_dir

BLOCK = 8
FEW = dict.fromkeys((10, 11, 12), 8.0)  # more likely than all others
GREEDY = Sampling(60, temperature=0.0)
SEEDED = Sampling(60, temperature=1.0, seed=7, bias=FEW)
CASES = {
    "greedy": (GREEDY, 1),
    "greedy with scores": (replace(GREEDY, logprobs=3), 1),
    "seeded": (SEEDED, 1),
    "seeded, four choices": (SEEDED, 4),
    "seeded with scores": (replace(SEEDED, logprobs=2), 2),
    "cut off": (replace(SEEDED, top_k=2), 1),
    "most likely ones": (replace(SEEDED, top_p=0.8, min_p=0.05), 1),
    "a stop": (replace(SEEDED, stop_tokens=frozenset({12})), 2),
    "penalties": (replace(SEEDED, presence=0.3), 1),
    "least length": (replace(SEEDED, min_tokens=9, stop_tokens=frozenset({11})), 1),
}


@pytest.fixture(scope="module")
def model():
    return open_model(model_dir(by_name("llama")), dtype="float32", device="cpu")


def engine(model, *, drafts: int, blocks: int) -> SteppedEngine:
    limits = Limits(256, 8, 64, BLOCK, blocks, VOCAB, draft_tokens=drafts)
    runner = TorchRunner(model, num_blocks=blocks, block_size=BLOCK, max_lanes=8)
    info = EngineInfo(
        "tiny", 256, VOCAB, BLOCK, blocks, 8, frozenset(Capability) - {Capability.GRAMMAR}
    )
    return SteppedEngine(info, limits, runner)


async def answer(running: SteppedEngine, request: GenerationRequest):
    """Tokens, scores and the end of each choice."""
    said = [([], [], []) for _ in range(request.n)]
    async for event in running.generate(request):
        tokens, scores, ends = said[event.choice]
        tokens += event.tokens
        scores += event.logprobs or ()
        if event.finish is not None:
            ends.append(event.finish)
    return said


def answers(model, *, drafts: int, blocks: int = 120):
    """Of all cases, two at a time; and how many drafted tokens were accepted."""

    async def run():
        running = engine(model, drafts=drafts, blocks=blocks)
        await running.start()
        said = []
        prompts = [(5, 6, 7, 5, 6, 7, 5), (3, 4) * 9]
        for name, (sampling, n) in CASES.items():
            pair = [
                GenerationRequest(RequestId(f"{name} {number}"), prompt, sampling, n)
                for number, prompt in enumerate(prompts)
            ]
            said.append(await asyncio.gather(*(answer(running, each) for each in pair)))
        load = running.load()
        await running.stop(grace_s=10)
        return said, load

    return asyncio.run(run())


def test_drafts_change_neither_tokens_nor_scores_nor_ends(model):
    """Ten ways to sample, twice each; and drafts were accepted, or this would show nothing."""
    want, without = answers(model, drafts=0)
    said, load = answers(model, drafts=7)
    for name, mine, other in zip(CASES, said, want, strict=True):
        assert mine == other, name
    assert without.drafted_tokens == 0
    assert load.accepted_tokens > 100
    assert load.steps < without.steps


def test_drafts_change_nothing_where_memory_is_short(model):
    """Sequences are preempted in between, and come back to what the cache has kept."""
    want, _ = answers(model, drafts=0)
    said, load = answers(model, drafts=7, blocks=34)
    assert said == want
    assert load.preemptions > 0
