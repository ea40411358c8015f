"""Scheduling decisions by value, where one picture says more than a thousand random runs."""

import numpy as np
import pytest

from engines.api import FinishReason, GenerationRequest, RequestId, Sampling
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.scheduler import Scheduler, _chunk
from engines.step import StepResult
from kvcache.pool import BlockPool


def request(name: str, tokens: int, *, new: int = 4, n: int = 1, priority: int = 0):
    prompt = tuple(range(1, tokens + 1))
    return GenerationRequest(RequestId(name), prompt, Sampling(new, temperature=0.0), n, priority)


class Bench:
    """A scheduler over the ledger, stepped by hand."""

    def __init__(self, **changes: int) -> None:
        sizes = {
            "max_context": 200, "max_running": 4, "tokens_per_step": 16,
            "block_size": 4, "num_blocks": 50, "vocab_size": 500,
        }  # fmt: skip
        self.limits = Limits(**{**sizes, **changes})
        pool = BlockPool(self.limits.num_blocks, self.limits.block_size)
        self.scheduler = Scheduler(self.limits, pool)
        self.runner = LedgerRunner(self.limits.num_blocks, self.limits.block_size, vocab_size=500)
        self.first_said: list[str] = []

    def step(self) -> list[int]:
        """One step; the rows of each segment, in order."""
        plan = self.scheduler.plan()
        shape = np.diff(plan.row_starts).tolist()
        outcome = self.scheduler.apply(plan, self.runner.collect(self.runner.launch(plan)))
        for sequence in outcome.sequences:
            if sequence.request.id not in self.first_said:
                self.first_said.append(sequence.request.id)
        return shape

    def drain(self) -> None:
        while self.scheduler.has_work:
            self.step()


def test_decoding_rows_go_before_prompt_chunks():
    """A long prompt takes what the budget leaves, step by step, and never stops a running chat."""
    bench = Bench()
    bench.scheduler.add(request("chat", 3, new=10))
    assert bench.step() == [3]
    bench.scheduler.add(request("long", 40))
    assert bench.step() == [1, 15]
    assert bench.step() == [1, 15]
    assert bench.step() == [1, 10]
    assert bench.step() == [1, 1]


def test_a_chunk_is_cut_so_that_no_token_stays_alone():
    """17 tokens under a budget of 16 go as 15 and 2."""
    bench = Bench()
    bench.scheduler.add(request("a", 17))
    assert bench.step() == [15]
    assert bench.step() == [2]


@pytest.mark.parametrize(
    ("left", "budget", "chunk"),
    [(1, 5, 1), (2, 5, 2), (6, 5, 4), (7, 5, 5), (3, 2, 0), (4, 3, 2), (5, 1, 0), (0, 4, 0)],
)
def test_chunk_sizes(left, budget, chunk):
    """Never one token of several, never one left behind."""
    assert _chunk(left, budget) == chunk


def test_priority_goes_first_and_waiting_ages_it():
    """A lower number is served earlier, until an older request has waited its classes out."""
    bench = Bench(max_running=1, ageing_steps=4)
    bench.scheduler.add(request("running", 2, new=3))
    bench.step()
    bench.scheduler.add(request("low", 3, priority=1))
    bench.scheduler.add(request("high", 4, priority=0))
    bench.drain()
    assert bench.first_said == ["running", "high", "low"]
    bench.scheduler.add(request("old", 5, priority=1, new=1))
    for number in range(20):
        bench.scheduler.add(request(f"new{number}", 6, priority=0, new=1))
        bench.step()
    assert "old" in bench.first_said[3:10]


def test_preemption_takes_the_youngest_and_brings_it_back_first():
    """The victim resumes before a request that was waiting, and replays its output row by row."""
    bench = Bench(num_blocks=6, max_running=3)
    bench.scheduler.add(request("old", 8, new=12))
    bench.scheduler.add(request("young", 7, new=10))
    bench.step()
    bench.scheduler.add(request("late", 9, new=2))
    shapes = [bench.step() for _ in range(30) if bench.scheduler.has_work]
    assert bench.scheduler.counters.preemptions >= 1
    assert bench.first_said == ["old", "young", "late"]
    assert max(map(max, filter(None, shapes))) <= 9
    bench.drain()
    assert bench.scheduler.pool.free == 6


def test_the_preempted_return_in_their_own_order():
    """Of two victims the older comes back first, though the younger was preempted first."""
    bench = Bench(num_blocks=9, max_running=3)
    for number, name in enumerate(("old", "middle", "young")):
        bench.scheduler.add(request(name, 7 + number, new=24))
        bench.step()
    returned = []
    while bench.scheduler.has_work:
        plan = bench.scheduler.plan()
        lanes = bench.scheduler._lanes
        returned += [
            lanes.occupants([start.lane])[0].request.id for start in plan.starts if start.generated
        ]
        bench.scheduler.apply(plan, bench.runner.collect(bench.runner.launch(plan)))
    assert bench.scheduler.counters.preemptions >= 2
    assert returned.index("middle") < returned.index("young")


def test_choices_share_full_blocks_and_copy_the_partial_one():
    """Three choices over 6 tokens hold the full block together; two get copies of the other."""
    bench = Bench()
    bench.scheduler.add(request("a", 6, n=3, new=3))
    bench.step()
    plan = bench.scheduler.plan()
    assert len(plan.copies) == 2
    tables = list(bench.scheduler.tables().values())
    assert len({table[0] for table in tables}) == 1
    assert len({table[1] for table in tables}) == 3
    assert bench.scheduler.pool.refs(tables[0][0]) == 3


def test_limits_that_could_starve_a_prompt_are_refused():
    """The budget must leave room for a legal chunk behind a full batch of decoding rows."""
    with pytest.raises(ValueError, match="must be at least max_running"):
        Limits(100, 16, 19, 4, 10, 50)


def test_load_counts_the_tokens_that_wait():
    """Admission control sees queued prompt tokens, and aborts take them out."""
    bench = Bench(max_running=1)
    bench.scheduler.add(request("a", 5))
    bench.step()
    bench.scheduler.add(request("b", 7))
    bench.scheduler.add(request("c", 9))
    assert bench.scheduler.waiting.tokens == 16
    bench.scheduler.abort(RequestId("b"))
    assert bench.scheduler.waiting.tokens == 9


class Forcing(Bench):
    """Every sampled token forces `count` further ones, which are 100 and up."""

    def __init__(self, count: int, **changes: int) -> None:
        super().__init__(**changes)
        self.count = count
        self.said: dict[str, list[int]] = {}
        self.finishes = {}

    def step(self) -> list[int]:
        plan = self.scheduler.plan()
        tokens = np.full(len(plan.sample_lanes), 50, np.int32)
        forced = {index: list(range(100, 100 + self.count)) for index in range(len(tokens))}
        outcome = self.scheduler.apply(plan, StepResult(tokens, forced=forced))
        for index, sequence in enumerate(outcome.sequences):
            log = self.said.setdefault(sequence.request.id, [])
            log += [outcome.tokens[index], *outcome.more[index]]
            if index in outcome.finishes:
                self.finishes[sequence.request.id] = outcome.finishes[index]
        return np.diff(plan.row_starts).tolist()


def test_forced_tokens_are_computed_as_single_rows_of_the_next_step():
    """The sampled token and its ten followers: eleven rows, over as many blocks as they need."""
    bench = Forcing(10)
    bench.scheduler.add(request("a", 3, new=40))
    assert bench.step() == [3]
    assert bench.step() == [1] * 11
    assert [len(table) for table in bench.scheduler.tables().values()] == [4]  # 14 of 25 tokens
    assert bench.step() == [1] * 11
    assert bench.said["a"] == [50, *range(100, 110)] * 3


def test_forced_tokens_wait_for_budget_like_any_others():
    """A step of 16 rows takes what it can of 20; nothing is sampled before all are computed."""
    bench = Forcing(19)
    bench.scheduler.add(request("a", 3, new=80))
    shapes = [bench.step() for _ in range(4)]
    assert shapes == [[3], [1] * 16, [1] * 4, [1] * 16]
    assert len(bench.said["a"]) == 40


@pytest.mark.parametrize("new", [1, 2, 11, 12, 13])
def test_forced_tokens_end_where_max_tokens_does(new):
    """Exactly so many are said, and the finish counts them."""
    bench = Forcing(10)
    bench.scheduler.add(request("a", 3, new=new))
    bench.drain()
    assert len(bench.said["a"]) == new == bench.finishes["a"].generated
    assert bench.finishes["a"].reason is FinishReason.LENGTH
    assert bench.scheduler.pool.free == bench.limits.num_blocks


def test_forced_tokens_of_a_preempted_sequence_are_kept_and_computed_again():
    """Two long answers in a pool for one and a half: both say all of theirs."""
    bench = Forcing(6, num_blocks=14, max_running=2)
    bench.scheduler.add(request("old", 5, new=40))
    bench.scheduler.add(request("young", 6, new=40))
    bench.drain()
    assert bench.scheduler.counters.preemptions > 0
    assert bench.said["old"] == bench.said["young"] == ([50, *range(100, 106)] * 6)[:40]
    assert bench.scheduler.pool.free == 14
