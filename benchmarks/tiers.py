"""What a block costs to compute, and to bring back: the bundled model on the CPU, float32.

    python -m benchmarks.tiers

For prompts of several lengths, the time from the request to its first token: with nothing kept,
with all of the prompt in the cache, in the host's memory, and on the disk (whose pages the system
may still have, as after most restarts). The cache is emptied before each; medians of RUNS.
"""

import asyncio
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from engines.api import EngineInfo, GenerationRequest, RequestId, Sampling
from engines.limits import Limits
from engines.stepped import SteppedEngine
from engines.tiers.opening import TierBudget, open_keeper
from engines.torch.loading import open_model
from engines.torch.runner import TorchRunner

MODEL = Path(__file__).parents[1] / "engines" / "bundled" / "penstock_tiny"
LENGTHS = (70, 134, 262, 518, 1030)
RUNS = 7
BLOCK = 32
LIMITS = Limits(2048, 4, 512, BLOCK, 256, 2560)


def engine(place: Path | None, host_blocks: int) -> SteppedEngine:
    """An engine whose tiers hold everything, or next to nothing of it in memory."""
    loaded = open_model(MODEL, device="cpu", dtype="float32")
    runner = TorchRunner(loaded, num_blocks=LIMITS.num_blocks, block_size=BLOCK, max_lanes=4)
    budget = TierBudget(host_blocks * runner.block_bytes, place, 1 << 30)
    keeper = open_keeper(budget, runner.block_bytes, lambda: bytes(16))
    info = EngineInfo("tiny", 2048, 2560, BLOCK, LIMITS.num_blocks, 4)
    return SteppedEngine(info, LIMITS, runner, keeper=keeper)


async def first_token(made: SteppedEngine, prompt: tuple[int, ...]) -> tuple[float, int]:
    """Seconds to the first token, and the prompt tokens that were not computed."""
    request = GenerationRequest(RequestId("r"), prompt, Sampling(1, temperature=0))
    begun = time.perf_counter()
    stream = made.generate(request)
    async for event in stream:
        taken = time.perf_counter() - begun
        await stream.aclose()
        return taken, event.cached
    raise RuntimeError("no token came")


def prompt_of(length: int, number: int) -> tuple[int, ...]:
    return tuple(3 + (number * 911 + index * 7) % 2500 for index in range(length))


async def computed(made: SteppedEngine, length: int) -> list[float]:
    return [
        (await first_token(made, prompt_of(length, number)))[0] for number in range(1, RUNS + 1)
    ]


async def found(made: SteppedEngine, length: int) -> list[float]:
    """Of prompts that were asked before, all of it must be there."""
    taken = []
    for number in range(1, RUNS + 1):
        seconds, cached = await first_token(made, prompt_of(length, number))
        assert cached == (length - 1) // BLOCK * BLOCK, f"{cached} of {length} found"
        taken.append(seconds)
    return taken


async def evict(made: SteppedEngine) -> None:
    """Fill the cache with something else."""
    for number in range(1000, 1005):
        await first_token(made, prompt_of(1900, number))


async def measure() -> dict[str, float]:
    """Median milliseconds to the first token by where the prompt is, and its length."""
    figures = {}
    for length in LENGTHS:
        with TemporaryDirectory() as place:
            made = engine(None, 4096)
            await made.start()
            times = {"computed": await computed(made, length), "cache": await found(made, length)}
            await evict(made)
            times["host"] = await found(made, length)
            await made.stop(0)
            made = engine(Path(place) / "kv", 64)
            await made.start()
            await computed(made, length)
            await made.stop(0)
            made = engine(Path(place) / "kv", 64)
            await made.start()
            await first_token(made, prompt_of(100, 2000))  # the first step of all is slower
            times["disk"] = await found(made, length)
            await made.stop(0)
        for where, taken in times.items():
            figures[f"tiers_ms_{where}_{length}"] = statistics.median(taken) * 1e3
    return figures


def main() -> None:
    figures = asyncio.run(measure())
    print(f"{'tokens':>8}{'computed':>12}{'cache':>12}{'host':>12}{'disk':>12}   ms")
    for length in LENGTHS:
        row = [
            figures[f"tiers_ms_{where}_{length}"] for where in ("computed", "cache", "host", "disk")
        ]
        print(f"{length:>8}" + "".join(f"{value:12.2f}" for value in row))


if __name__ == "__main__":
    main()
