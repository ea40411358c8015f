"""Every family on offer generates what transformers generates, token for token, in float32."""

import asyncio
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from engines.api import Capability, EngineInfo, EngineLoad, GenerationRequest, RequestId, Sampling
from engines.bundled import penstock_tiny
from engines.limits import Limits
from engines.stepped import SteppedEngine
from engines.torch.families import FAMILIES
from tests.support.openvino import needs_openvino
from tests.support.plans import Driver, Run
from tests.support.runners import OPENVINO, TORCH, RunnerKind
from tests.support.tiny_models import TINY_MODELS, Tiny, greedy_truth, model_dir, prompts

NEW = 12
BLOCKS = 640
GREETINGS = ("Hello", "Good morning", "My name is Zoë, and I like rivers 🌊", "Dear Penstock")
ASKS = (
    "Who are you?",
    "Tell me a short story about a fox.",
    "What is 17 + 25?",
    "Repeat the words: red green blue red green.",
    "How does continuous batching keep many readers happy at the same time?",
    "Count to 5.",
    "Answer in JSON with the keys name and age.",
    "What did I tell you my name was, and what does a gateway do with tokens?",
)
BUNDLED = Tiny("penstock-tiny", "llama")
ONES = [f"{greeting}! {ask}" for greeting in GREETINGS for ask in ASKS]
TEXTS = [" ".join(ONES[first : first + 1 + first % 4]) for first in range(len(ONES))]

# What a runner cannot compute, and refuses by name.
REFUSED = {("openvino", "gemma2")}  # soft-capped attention

each_model = pytest.mark.parametrize("tiny", [*TINY_MODELS, BUNDLED], ids=lambda tiny: tiny.name)
each_runner = pytest.mark.parametrize(
    ("kind", "tiny"),
    [
        pytest.param(kind, tiny, id=f"{kind.name}-{tiny.name}", marks=marks)
        for kind, marks in ((TORCH, ()), (OPENVINO, needs_openvino))
        for tiny in (*TINY_MODELS, BUNDLED)
        if (kind.name, tiny.name) not in REFUSED
    ],
)


@cache
def directory(tiny) -> Path:
    return penstock_tiny() if tiny is BUNDLED else model_dir(tiny)


@cache
def starts(tiny) -> list[list[int]]:
    """32 prompts of 1 to 90 tokens; for the bundled model, text it knows."""
    if tiny is not BUNDLED:
        return prompts(32, longest=90)
    tokenizer = Tokenizer.from_file(str(penstock_tiny() / "tokenizer.json"))
    return [tokenizer.encode(text).ids for text in TEXTS]


@cache
def truth(tiny) -> list[list[int]]:
    return greedy_truth(directory(tiny), starts(tiny), NEW)


@cache
def loaded(kind: RunnerKind, tiny):
    return kind.load(directory(tiny))


def driver(kind: RunnerKind, tiny, *, seed=0) -> Driver:
    runner = kind.make(loaded(kind, tiny), num_blocks=BLOCKS, max_lanes=64)
    return Driver(runner, num_blocks=BLOCKS, block_size=kind.block, seed=seed)


def engine(kind: RunnerKind, tiny, *, blocks: int) -> SteppedEngine:
    facts = loaded(kind, tiny).facts
    limits = Limits(
        max_context=facts.max_context,
        max_running=32,
        tokens_per_step=71,
        block_size=kind.block,
        num_blocks=blocks,
        vocab_size=facts.vocab_size,
    )
    runner = kind.make(loaded(kind, tiny), num_blocks=blocks, max_lanes=32)
    info = EngineInfo(
        model=tiny.name,
        max_context=limits.max_context,
        vocab_size=limits.vocab_size,
        block_size=kind.block,
        num_blocks=blocks,
        max_running=limits.max_running,
        capabilities=frozenset(Capability) - {Capability.GRAMMAR},
    )
    return SteppedEngine(info, limits, runner)


async def generate(
    running: SteppedEngine, wave: int, first: list[list[int]], n: int
) -> list[list[list[int]]]:
    """The choices of every start, all asked for at once."""
    greedy = Sampling(max_tokens=NEW, temperature=0.0)
    requests = [
        GenerationRequest(RequestId(f"{wave}-{i}"), tuple(start), greedy, n)
        for i, start in enumerate(first)
    ]
    return await asyncio.gather(*(_choices(running, request) for request in requests))


async def _choices(running: SteppedEngine, request: GenerationRequest) -> list[list[int]]:
    choices: list[list[int]] = [[] for _ in range(request.n)]
    async for event in running.generate(request):
        choices[event.choice] += event.tokens
    return choices


def full_tokens(kind: RunnerKind, start: list[int]) -> int:
    """Those of a prompt in full blocks; its last two tokens are computed in any case."""
    return max(0, len(start) - 2) // kind.block * kind.block


def serve(
    kind: RunnerKind, tiny, *, blocks: int = BLOCKS, count: int = 32, waves: int = 1, n: int = 1
):
    """The choices of the first `count` starts, wave by wave, and the engine's counters."""

    async def run() -> tuple[list[list[list[list[int]]]], EngineLoad]:
        running = engine(kind, tiny, blocks=blocks)
        await running.start()
        first = starts(tiny)[:count]
        choices = [await generate(running, wave, first, n) for wave in range(waves)]
        load = running.load()
        await running.stop(grace_s=10)
        return choices, load

    return asyncio.run(run())


def test_every_family_on_offer_has_an_equality_test():
    """A family cannot be added to the table without a model here."""
    assert {tiny.family for tiny in TINY_MODELS} == set(FAMILIES)


@each_model
def test_the_truth_is_not_degenerate(tiny):
    """Equality would say little if the models always repeated one token."""
    assert len({token for line in truth(tiny) for token in line}) > 40


@each_runner
def test_a_prompt_alone_matches(kind, tiny):
    """A whole prompt, then one row per step."""
    for start, expected in list(zip(starts(tiny), truth(tiny), strict=True))[:4]:
        drive = driver(kind, tiny)
        assert drive.finish([drive.start(0, start)], NEW) == [expected]


@each_runner
def test_a_mixed_batch_matches_with_chunks_of_odd_sizes(kind, tiny):
    """32 prompts arrive over time, prefill in odd chunks, decode beside each other's prefill."""
    rng = np.random.default_rng(1)
    drive = driver(kind, tiny, seed=1)
    seqs = [
        drive.start(int(lane), start)
        for lane, start in zip(rng.permutation(64), starts(tiny), strict=False)
    ]
    arrived = 4
    while any(len(s.generated) < NEW for s in seqs):
        running = [s for s in seqs[:arrived] if len(s.generated) < NEW]
        sizes = rng.choice([1, 3, 5, 7, 13, 31], len(running))
        drive.step([Run(s, min(s.pending, int(n))) for s, n in zip(running, sizes, strict=True)])
        arrived = min(len(seqs), arrived + 3)
    assert [s.generated for s in seqs] == truth(tiny)


@each_runner
def test_replay_as_rows_in_other_blocks_matches(kind, tiny):
    """A preempted sequence comes back: prompt as a chunk, generated tokens as one-row segments."""
    drive = driver(kind, tiny)
    start, expected = starts(tiny)[0], truth(tiny)[0]
    first = drive.start(0, start)
    drive.finish([first], NEW // 2)
    again = drive.start(1, start, generated=first.generated)
    drive.step([Run(again, len(start))])
    drive.step([Run(again, again.pending, split=True)])
    drive.finish([again], NEW)
    assert again.generated == expected
    assert set(again.table).isdisjoint(first.table)


@each_runner
def test_choices_that_share_a_prompt_match(kind, tiny):
    """Three choices sample one row, share full blocks and copy the partial one."""
    drive = driver(kind, tiny)
    start, expected = starts(tiny)[3], truth(tiny)[3]
    assert len(start) % kind.block
    parent = drive.start(0, start)
    forks = drive.fork(parent, [5, 3])
    drive.step([Run(parent, len(start))], forks=forks)
    copies = []
    for fork in forks:
        own = drive.free.pop()
        copies.append((parent.table[-1], own))
        fork.table = [*parent.table[:-1], own]
        fork.computed = parent.computed
    drive.step([Run(s, 1) for s in (*forks, parent)], copies=copies)
    assert drive.finish([parent, *forks], NEW) == [expected] * 3


@each_runner
def test_the_engine_matches_in_a_mixed_batch_and_on_prefix_hits(kind, tiny):
    """32 requests at once, prompts chunked by a budget of 71 rows; then again, from the cache."""
    choices, load = serve(kind, tiny, waves=2)
    assert choices == [[[line] for line in truth(tiny)]] * 2
    assert load.prefix_hit_tokens >= sum(full_tokens(kind, start) for start in starts(tiny))
    assert load.blocks_used == 0


@each_runner
def test_the_engine_matches_after_preemption(kind, tiny):
    """A pool that holds a fifth of what 16 requests need, and the largest of them."""
    needs = [-(-(len(start) + NEW) // kind.block) for start in starts(tiny)[:16]]
    choices, load = serve(kind, tiny, blocks=max(*needs, sum(needs) // 5), count=16)
    assert choices == [[[line] for line in truth(tiny)[:16]]]
    assert load.preemptions > 1


@each_runner
def test_the_engine_matches_for_several_choices(kind, tiny):
    """Greedy choices share the prompt's blocks, part, and say the same."""
    choices, _ = serve(kind, tiny, count=8, n=3)
    assert choices == [[[line] * 3 for line in truth(tiny)[:8]]]
