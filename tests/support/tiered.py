"""Stepped engines with slower tiers, and a workload in which prompts come back after eviction."""

import asyncio
import random

from engines.api import Capability
from engines.tiers.folder import file_bytes
from engines.tiers.opening import TierBudget, open_keeper
from tests.support.engines import ask, ledger, read, stepped

PRINT = b"p" * 16
CAN = frozenset({Capability.SAMPLING, Capability.LOGPROBS})


def tiered(limits, host=0, disk_dir=None, disk=0, *, runner=ledger, fingerprint=PRINT):
    """An engine whose tiers have room for so many blocks; not started."""
    made = runner(limits)
    size = made.block_bytes
    budget = TierBudget(host * size, disk_dir, disk * file_bytes(size))
    keeper = open_keeper(budget, size, lambda: fingerprint)
    return stepped(limits, lambda _: made, CAN, keeper=keeper)


def returning_prompts(count, seed=0, longest=60, tokens=200):
    """Prompts over a few stems of random tokens, that part midway and come again much later."""
    rng = random.Random(seed)
    stems = [[rng.randrange(3, tokens) for _ in range(longest)] for _ in range(4)]
    return [
        rng.choice(stems)[: rng.randrange(8, longest)]
        + [rng.randrange(3, tokens) for _ in range(rng.randrange(1, 6))]
        for _ in range(count)
    ]


async def answers(engine, prompts, *, at_once=3, **sampling):
    """What a started engine says to each, with some of them running at the same time."""
    turn = asyncio.Semaphore(at_once)

    async def one(number, prompt):
        async with turn:
            return await read(engine.generate(ask(f"r{number}", prompt, **sampling)))

    return await asyncio.gather(*(one(*each) for each in enumerate(prompts)))


def said(all_of):
    """The tokens and log-probabilities of each answer."""
    return [(answer[0].tokens, answer[0].logprobs) for answer in all_of]
