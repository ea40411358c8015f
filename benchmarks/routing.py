"""What it costs to choose a replica by what is in its cache: a million blocks, 64 workers.

    python -m benchmarks.routing

Prompts hang on shared beginnings of several lengths, as system prompts and conversations do; each
beginning is on up to 64 workers, and further ones are on fewer. `decision` is everything from the
prompt's tokens to the replica that is told to take it: names, matches, ranks, and the expectation
that is noted. `match` is the question to the directory alone. Folding a batch and forgetting a
worker hold the event loop too, so they are timed as well.
"""

import gc
import json
import random
import statistics
import sys
import time

from engines.api import EngineInfo, EngineLoad, GenerationRequest, RequestId, Sampling
from engines.kv_changes import KvChange, KvListener
from engines.replicas.prefix_aware import PrefixAware
from engines.replicas.replica import Replica
from kvcache.naming import namespace, prompt_names

WORKERS = 64
BLOCKS = 1_000_000
BLOCK_SIZE = 32
PROMPT_BLOCKS = (8, 32, 128, 256)  # 256 blocks are 8,192 tokens
DECISIONS = 4000
PART = 8192
SPACE = namespace(b"benchmark", str(BLOCK_SIZE).encode())
IDLE = EngineLoad(0, 0, 0, 0, BLOCKS)
INFO = EngineInfo("benchmark", 1 << 20, 100_000, BLOCK_SIZE, BLOCKS, 1 << 20)


class Told:
    """An engine that computes nothing, and a cache that the benchmark tells of."""

    info = INFO
    kv_namespace = SPACE

    def follow_kv(self, listener: KvListener) -> None:
        """Keep who listens."""
        self.tell = listener

    def load(self) -> EngineLoad:
        """Nobody is busy."""
        return IDLE


def filled(chance: random.Random) -> tuple[PrefixAware, list[Replica], list[list[int]], int]:
    """A policy that knows BLOCKS names, its replicas, and prompts that have them."""
    policy, engines = PrefixAware(), [Told() for _ in range(WORKERS)]
    for number, engine in enumerate(engines):
        policy.came(f"w{number}", engine)
    prompts, names = [], 0
    while names < BLOCKS:
        length = chance.choice(PROMPT_BLOCKS)
        prompt = [chance.randrange(100_000) for _ in range(length * BLOCK_SIZE)]
        blocks = tuple(prompt_names(SPACE, prompt, BLOCK_SIZE))
        holders = chance.sample(engines, chance.randint(1, WORKERS))
        for engine in holders:  # each has some of it, from the beginning
            engine.tell(KvChange(stored=blocks[: chance.randint(1, length)]))
        holders[0].tell(KvChange(stored=blocks))
        names += length
        if len(prompts) < DECISIONS:
            prompts.append(prompt)
    replicas = [Replica(f"w{number}", engine) for number, engine in enumerate(engines)]  # type: ignore[arg-type]
    return policy, replicas, prompts, names


def measure() -> dict[str, float]:
    """Microseconds of each part; a decision's by quantile."""
    chance = random.Random(1)
    gc.disable()  # while a million names are made
    policy, replicas, prompts, names = filled(chance)
    gc.enable()
    gc.collect()
    gc.freeze()  # the prompts, which no gateway has
    decisions, matches = [], []
    for number in range(DECISIONS):
        prompt = chance.choice(prompts)
        tail = [chance.randrange(100_000) for _ in range(BLOCK_SIZE)]
        sampling = Sampling(1)
        request = GenerationRequest(RequestId(str(number)), (*prompt, *tail), sampling)
        begun = time.perf_counter()
        preference = policy.look(request, replicas)
        best = min(preference.ranks, key=preference.ranks.__getitem__)
        preference.took(best)
        decisions.append(time.perf_counter() - begun)
        chain = prompt_names(SPACE, prompt, BLOCK_SIZE)
        begun = time.perf_counter()
        policy.directory.matches(chain)
        matches.append(time.perf_counter() - begun)
    fold = _timed(lambda: policy.directory.fold("w0", stored=[
        chance.randbytes(16) for _ in range(PART)]))  # fmt: skip
    clear = _timed(lambda: policy.directory.clear("w1"))
    sweeps = [_timed(lambda: policy.directory.fold("w0")) for _ in range(50)]
    return {
        "names": names,
        "decision_p50_us": statistics.median(decisions) * 1e6,
        "decision_p99_us": _quantile(decisions, 0.99) * 1e6,
        "decision_max_us": max(decisions) * 1e6,
        "match_p50_us": statistics.median(matches) * 1e6,
        "match_p99_us": _quantile(matches, 0.99) * 1e6,
        f"fold_{PART}_us": fold * 1e6,
        "forget_worker_us": clear * 1e6,
        "longest_sweep_us": max(sweeps) * 1e6,
    }


def _timed(action: object) -> float:
    begun = time.perf_counter()
    action()  # type: ignore[operator]
    return time.perf_counter() - begun


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


if __name__ == "__main__":
    json.dump({name: round(value, 1) for name, value in measure().items()}, sys.stdout, indent=2)
    print()
