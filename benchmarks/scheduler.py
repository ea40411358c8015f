"""Host cost of scheduling: plan + apply per step in steady decoding, on the ledger.

    python -m benchmarks.scheduler

The clock runs only inside `plan` and `apply`. `alone` nothing is computed between them, which is
how schedulers are mostly measured; else the ledger computes, and caches are as cold as beside a
model. Prompts differ in length, so that in each step some sequences fill a block:
one in 32, as many as do in the long run. What follows a step, its events into the streams'
mailboxes on the event loop, is told apart; and so is the look-up of a prompt in the prefix cache.
"""

import statistics
import time
from collections.abc import Iterator

import numpy as np

from engines.api import GenerationRequest, RequestId, Sampling
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.mailbox import Mailbox
from engines.outcome import StepOutcome
from engines.scheduler import Scheduler
from engines.step import StepPlan, StepResult, StepRunner
from kvcache.pool import BlockPool

STEPS = 400
PROMPT = 96
VOCAB = 1000
BLOCK = 32
LOOKED_UP = 512  # blocks: a prompt of 16,384 tokens


def _limits(running: int) -> Limits:
    return Limits(1024, running, 2 * running + 2048, BLOCK, running * 24, VOCAB)


def _requests(count: int) -> Iterator[GenerationRequest]:
    for number in range(count):
        length = PROMPT + number % BLOCK
        prompt = tuple((number * 7 + index) % VOCAB for index in range(length))
        yield GenerationRequest(RequestId(str(number)), prompt, Sampling(STEPS + 50, seed=number))


class _Instant:
    """Says tokens without computing anything."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def launch(self, plan: StepPlan) -> StepResult:
        return StepResult(self._random.integers(0, VOCAB, len(plan.sample_lanes), np.int32))

    def collect(self, ticket: object) -> StepResult:
        assert isinstance(ticket, StepResult)
        return ticket

    def close(self) -> None:
        """Nothing is held."""


def steady_steps(
    running: int, waiting: int = 0, *, alone: bool = False
) -> Iterator[tuple[float, StepOutcome]]:
    """Seconds of plan + apply, and what came of it, of steps with `running` decoding sequences."""
    limits = _limits(running)
    scheduler = Scheduler(limits, BlockPool(limits.num_blocks, BLOCK))
    ledger = LedgerRunner(limits.num_blocks, BLOCK, vocab_size=VOCAB)
    runner: StepRunner = _Instant() if alone else ledger
    for request in _requests(running + waiting):
        scheduler.add(request)
    while True:
        begun = time.perf_counter()
        plan = scheduler.plan()
        planned = time.perf_counter()
        steady = plan.rows == running == plan.segments
        result = runner.collect(runner.launch(plan))
        ran = time.perf_counter()
        outcome = scheduler.apply(plan, result)
        applied = time.perf_counter()
        if steady:
            yield planned - begun + applied - ran, outcome


def step_us(running: int, waiting: int = 0, *, alone: bool = False) -> float:
    """Median microseconds of plan + apply."""
    steps = zip(steady_steps(running, waiting, alone=alone), range(STEPS), strict=False)
    return statistics.median(seconds for (seconds, _), _ in steps) * 1e6


def delivery_us(running: int) -> float:
    """Median microseconds on the event loop in which a step's events reach their mailboxes."""
    boxes = {each.id: Mailbox(each, lambda _request, _choice: None) for each in _requests(running)}
    times = []
    for (_, outcome), _ in zip(steady_steps(running), range(STEPS), strict=False):
        begun = time.perf_counter()
        for index, sequence in enumerate(outcome.sequences):
            boxes[sequence.request.id].push(outcome.event(index))
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def lookup_us() -> float:
    """Median microseconds for each block of a prompt that is in the prefix cache."""
    pool = BlockPool(LOOKED_UP, BLOCK)
    tokens = np.arange(LOOKED_UP * BLOCK, dtype=np.int32) % VOCAB
    blocks = pool.take(LOOKED_UP)
    contents = tokens.reshape(LOOKED_UP, BLOCK)
    for index, block in enumerate(blocks):
        pool.seal(block, blocks[index - 1] if index else b"", contents[index].tobytes())
    times = []
    for _ in range(STEPS):
        begun = time.perf_counter()
        found = pool.match(b"", tokens)
        times.append((time.perf_counter() - begun) / len(found))
    return statistics.median(times) * 1e6


def measure() -> dict[str, float]:
    """Median microseconds by number of running (and waiting) sequences."""
    figures = {}
    for running, waiting in ((16, 0), (64, 0), (256, 0), (256, 1000), (256, 10_000), (1024, 0)):
        name = f"scheduler_us_{running}" + (f"_and_{waiting}_waiting" if waiting else "")
        figures[name] = step_us(running, waiting)
    for running in (16, 64, 256, 1024):
        figures[f"scheduler_alone_us_{running}"] = step_us(running, alone=True)
    for running in (256, 1024):
        figures[f"delivery_us_{running}"] = delivery_us(running)
    return figures | {"prefix_lookup_us_a_block": lookup_us()}


def main() -> None:
    for name, value in measure().items():
        print(f"{name:40s} {value:9.2f}")


if __name__ == "__main__":
    main()
