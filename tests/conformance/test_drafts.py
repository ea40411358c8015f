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
from tests.support.openvino import needs_openvino, open_openvino, openvino_runner
from tests.support.tiny_models import VOCAB, by_name, model_dir

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


def torch_runner(blocks: int):
    model = open_model(model_dir(by_name("llama")), dtype="float32", device="cpu")
    return TorchRunner(model, num_blocks=blocks, block_size=8, max_lanes=8), 8


def on_openvino(blocks: int):
    loaded = open_openvino(model_dir(by_name("llama")))
    return openvino_runner(loaded, num_blocks=blocks // 2, max_lanes=8), 32


@pytest.fixture(params=[torch_runner, pytest.param(on_openvino, marks=needs_openvino)])
def opened(request):
    """Opens a runner of so many blocks; and how large those are."""
    return request.param


def engine(opened, *, drafts: int, blocks: int) -> SteppedEngine:
    runner, size = opened(blocks)
    limits = Limits(256, 8, 64, size, blocks * 8 // size, VOCAB, draft_tokens=drafts)
    info = EngineInfo(
        "tiny", 256, VOCAB, size, limits.num_blocks, 8, frozenset(Capability) - {Capability.GRAMMAR}
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


def answers(opened, *, drafts: int, blocks: int = 120):
    """Of all cases, two at a time; and how many drafted tokens were accepted."""

    async def run():
        running = engine(opened, drafts=drafts, blocks=blocks)
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


def test_drafts_change_neither_tokens_nor_scores_nor_ends(opened):
    """Ten ways to sample, twice each; and drafts were accepted, or this would show nothing."""
    want, without = answers(opened, drafts=0)
    said, load = answers(opened, drafts=7)
    for name, mine, other in zip(CASES, said, want, strict=True):
        assert mine == other, name
    assert without.drafted_tokens == 0
    assert load.accepted_tokens > 60
    assert load.steps < without.steps


def test_drafts_change_nothing_where_memory_is_short(opened):
    """Sequences are preempted in between, and come back to what the cache has kept."""
    want, _ = answers(opened, drafts=0)
    said, load = answers(opened, drafts=7, blocks=34)
    assert said == want
    assert load.preemptions > 0
