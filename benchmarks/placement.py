"""What each policy of routing saves: how much of all prompts is computed, and how even the load is.

    python -m benchmarks.placement

Four replicas of the ledger, whose caches together hold about the working set. 32 clients hold
conversations of six turns, one after another; each begins with one of 8 (then 3) system prompts of
1,024 tokens, and each turn repeats all that was said before. The same ones for each policy.
"""

import asyncio
import json
import random
import sys
from collections.abc import Callable

import uvloop

from engines.api import EngineInfo, GenerationRequest, RequestId, Sampling
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.replicas import ReplicaSet
from engines.replicas.policies import LeastLoaded, RoundRobin, Routing, Sticky
from engines.replicas.prefix_aware import PrefixAware
from engines.stepped import SteppedEngine

REPLICAS = 4
CLIENTS = 32
CONVERSATIONS = 128
TURNS = 6
SYSTEM_TOKENS, ASKED_TOKENS, ANSWERED_TOKENS = 1024, 96, 48
SYSTEMS = (8, 3)
BLOCKS = 1024  # of each replica: 32,768 tokens
VOCAB = 1000
LIMITS = Limits(4096, 16, 512, 32, BLOCKS, VOCAB)
INFO = EngineInfo("ledger", 4096, VOCAB, 32, BLOCKS, 16)
POLICIES: dict[str, Callable[[], Routing]] = {
    "prefix": PrefixAware,
    "least-loaded": LeastLoaded,
    "round-robin": RoundRobin,
    "sticky": Sticky,
}


async def talk(replicas: ReplicaSet, number: int, systems: int) -> None:
    """One conversation."""
    system, own = random.Random(number % systems), random.Random(1000 + number)
    said = [system.randrange(VOCAB) for _ in range(SYSTEM_TOKENS)]
    for turn in range(TURNS):
        said += [own.randrange(VOCAB) for _ in range(own.randint(8, 2 * ASKED_TOKENS))]
        sampling = Sampling(ANSWERED_TOKENS, temperature=0.0)
        request = GenerationRequest(RequestId(f"{number}.{turn}"), tuple(said), sampling)
        async for event in replicas.generate(request):
            said += event.tokens


async def figures(routing: Routing, systems: int) -> dict[str, float]:
    """What the replicas say of themselves after all conversations."""
    engines = [
        SteppedEngine(INFO, LIMITS, LedgerRunner(BLOCKS, 32, vocab_size=VOCAB))
        for _ in range(REPLICAS)
    ]
    replicas = ReplicaSet(routing=routing)
    for number, engine in enumerate(engines):
        await engine.start()
        replicas.add(f"r{number}", engine, engine)
    waiting = list(reversed(range(CONVERSATIONS)))

    async def client() -> None:
        while waiting:
            await talk(replicas, waiting.pop(), systems)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    loads = [engine.load() for engine in engines]
    for engine in engines:
        await engine.stop(0)
    asked = sum(load.prefix_query_tokens for load in loads)
    cached = sum(load.prefix_hit_tokens for load in loads)
    computed = [load.prefix_query_tokens - load.prefix_hit_tokens for load in loads]
    return {
        "cached_share": cached / asked,
        "computed_tokens": asked - cached,
        "busiest_to_mean": max(computed) * REPLICAS / sum(computed),
    }


def measure() -> dict[str, dict[str, float]]:
    """The figures of each policy, by the number of system prompts."""
    return {
        f"{name}_{systems}": uvloop.run(figures(policy(), systems))
        for systems in SYSTEMS
        for name, policy in POLICIES.items()
    }


if __name__ == "__main__":
    told = {
        name: {what: round(value, 3) for what, value in row.items()}
        for name, row in measure().items()
    }
    json.dump(told, sys.stdout, indent=2)
    print()
