"""Host cost of scheduling: plan + apply per step in steady decoding, on the ledger.

    python -m benchmarks.scheduler

The ledger's own time is left out: the clock runs only inside `plan` and `apply`.
"""

import statistics
import time
from collections.abc import Iterator

from engines.api import GenerationRequest, RequestId, Sampling
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.scheduler import Scheduler
from kvcache.pool import BlockPool

STEPS = 400
PROMPT = 96
VOCAB = 1000
BLOCK = 32


def step_times(running: int, waiting: int = 0) -> Iterator[float]:
    """Seconds of plan + apply for each of STEPS steps with `running` decoding sequences."""
    blocks = running * 24
    limits = Limits(1024, running, 2 * running + 2048, BLOCK, blocks, VOCAB)
    scheduler = Scheduler(limits, BlockPool(blocks, BLOCK))
    runner = LedgerRunner(blocks, BLOCK, vocab_size=VOCAB)
    for number in range(running + waiting):
        length = PROMPT + number % BLOCK  # so that some cross into a new block in every step
        prompt = tuple((number * 7 + index) % VOCAB for index in range(length))
        sampling = Sampling(STEPS + 50, seed=number)
        scheduler.add(GenerationRequest(RequestId(str(number)), prompt, sampling))
    while True:
        begun = time.perf_counter()
        plan = scheduler.plan()
        planned = time.perf_counter()
        steady = plan.rows == running == plan.segments
        result = runner.collect(runner.launch(plan))
        ran = time.perf_counter()
        scheduler.apply(plan, result)
        if steady:
            yield planned - begun + time.perf_counter() - ran


def measure() -> dict[str, float]:
    """Median microseconds per step by number of running (and waiting) sequences."""
    figures = {}
    for running, waiting in ((16, 0), (64, 0), (256, 0), (256, 1000), (1024, 0)):
        times = [t for t, _ in zip(step_times(running, waiting), range(STEPS), strict=False)]
        name = f"scheduler_us_{running}" + (f"_and_{waiting}_waiting" if waiting else "")
        figures[name] = statistics.median(times) * 1e6
    return figures


def main() -> None:
    for name, value in measure().items():
        print(f"{name:40s} {value:9.1f}")


if __name__ == "__main__":
    main()
