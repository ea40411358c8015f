"""Drafts by value: what is guessed, what of it counts, and what it costs and saves."""

from dataclasses import replace

import numpy as np
import pytest

from engines.api import GenerationRequest, RequestId, Sampling, ThinkingBudget
from engines.drafting import MOST_LIVE, MOST_ROWS, look_up, may_draft
from engines.drafts import drafts_of
from engines.ledger import LedgerRunner, check_plan, ledger_tokens
from engines.limits import Limits
from engines.scheduler import Scheduler
from engines.step import StepPlan
from kvcache.pool import BlockPool
from tests.support.drafted import check_drafted

VOCAB = 50


def asked(name: str, prompt, sampling: Sampling, n: int = 1) -> GenerationRequest:
    return GenerationRequest(RequestId(name), tuple(prompt), sampling, n)


class Bench:
    """A scheduler over a ledger that says only `said` different tokens."""

    def __init__(self, *, drafts: int = 7, said: int = 1, blocks: int = 200, block: int = 32):
        self.limits = Limits(512, 16, 64, block, blocks, VOCAB, draft_tokens=drafts)
        self.scheduler = Scheduler(self.limits, BlockPool(blocks, block))
        self.runner = LedgerRunner(blocks, block, vocab_size=VOCAB, first=VOCAB - said)
        self.said: dict[tuple[str, int], list[int]] = {}
        self.rows: list[int] = []

    def step(self) -> StepPlan:
        plan = self.scheduler.plan()
        check_plan(plan)
        self.rows.append(plan.rows)
        outcome = self.scheduler.apply(plan, self.runner.collect(self.runner.launch(plan)))
        for index, sequence in enumerate(outcome.sequences):
            log = self.said.setdefault((sequence.request.id, sequence.choice), [])
            log += outcome.event(index).tokens
        return plan

    def run(self, *requests: GenerationRequest) -> int:
        """The steps in which all of these end."""
        for request in requests:
            self.scheduler.add(request)
        while self.scheduler.has_work:
            self.step()
        return len(self.rows)


@pytest.mark.parametrize(
    ("said", "most", "guess"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3], 4, [4, 5, 1, 2]),
        ([9, 2, 3, 7, 1, 2, 3, 4, 8, 1, 2, 3], 2, [4, 8]),  # three known tokens before two
        ([9, 2, 3, 7, 1, 2, 3], 2, [7, 1]),
        ([1, 2, 3, 5, 1, 2, 3, 6, 1, 2, 3], 1, [6]),  # as it was the last time
        ([5, 5, 5, 5], 3, [5, 5, 5]),  # what repeats goes on
        ([1, 2, 1, 2, 1, 2], 5, [1, 2, 1, 2, 1]),
        ([1, 2, 3, 4], 3, []),
        ([1, 2, 3, 1], 3, []),  # one known token says too little
        ([1], 3, []),
    ],
)
def test_the_guess_is_what_followed_the_last_time(said, most, guess):
    """The longer of two known beginnings, and of equals the newest."""
    assert look_up(np.array(said, np.int32), most).tolist() == guess


def _plan(lanes, fed):
    rows = np.arange(len(fed), dtype=np.int32)
    empty = np.zeros(0, np.int32)
    return StepPlan(
        np.array(fed, np.int32), rows, rows, rows, rows, rows, empty, empty, rows,
        np.array(lanes, np.int32), drafts=len(lanes) - len(set(lanes)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lanes", "fed", "sampled", "counted"),
    [
        ([3, 3, 3, 3], [0, 1, 2, 3], [1, 2, 3, 4], [1, 1, 1, 1]),
        ([3, 3, 3, 3], [0, 1, 2, 3], [1, 2, 9, 4], [1, 1, 1, 0]),
        ([3, 3, 3, 3], [0, 1, 2, 3], [9, 2, 3, 4], [1, 0, 0, 0]),
        ([3, 3, 5, 7, 7], [0, 1, 0, 0, 4], [9, 9, 9, 4, 9], [1, 0, 1, 1, 1]),
    ],
)
def test_samples_count_up_to_the_first_wrong_guess(lanes, fed, sampled, counted):
    """That guess's row is wrong, and so is all behind it; other lanes are not touched."""
    drafts = drafts_of(_plan(lanes, fed))
    assert drafts.counted(np.array(sampled)).tolist() == [bool(one) for one in counted]


def test_samples_know_their_place_behind_the_last_token():
    """The noise that draws a token is that of its place."""
    assert drafts_of(_plan([3, 3, 5, 7, 7, 7], [0] * 6)).offsets.tolist() == [0, 1, 0, 0, 1, 2]
    assert drafts_of(_plan([3, 5, 7], [0] * 3)) is None


def test_text_that_repeats_takes_a_fraction_of_the_steps():
    """One token over and over: once drafts have grown, each step says eight of 200."""
    bench = Bench()
    steps = bench.run(asked("a", [1, 2, 3], Sampling(200, seed=1)))
    assert bench.said["a", 0] == [VOCAB - 1] * 200
    assert steps < 45
    counters = bench.scheduler.counters
    assert counters.accepted_tokens == counters.drafted_tokens == 200 - steps


def test_text_that_never_repeats_costs_next_to_nothing():
    """After drafts of which nothing was right, a sequence pauses, each time longer."""
    bench = Bench(said=3)
    bench.run(asked("a", [1, 2, 3], Sampling(400, temperature=1.0, seed=1)))
    counters = bench.scheduler.counters
    assert counters.drafted_tokens - counters.accepted_tokens < 200
    assert Bench(said=VOCAB).run(asked("a", range(50), Sampling(100))) == 100


@pytest.mark.parametrize("said", [1, 2, 3, VOCAB])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_said_is_what_would_be_said_without(said, temperature):
    """Token for token; with choices, stops, memory for half of them, and prefixes shared."""
    bench = Bench(said=said, blocks=24, block=4)
    sampling = Sampling(40, seed=5, temperature=temperature)
    stops = replace(sampling, stop_tokens=frozenset({VOCAB - 2}))
    prompts = [[1, 2, 1, 2, 1], [1, 2, 1, 2, 1, 3], [7, 7, 7, 7]]
    requests = [
        asked("a", prompts[0], sampling), asked("b", prompts[1], stops, n=2),
        asked("c", prompts[2], replace(sampling, max_tokens=3)), asked("d", prompts[2], sampling),
    ]  # fmt: skip
    bench.run(*requests)
    for request in requests:
        for choice in range(request.n):
            want = ledger_tokens(
                request.prompt, request.sampling, vocab_size=VOCAB, choice=choice,
                first=VOCAB - said,
            )  # fmt: skip
            assert bench.said[request.id, choice] == want
    assert bench.scheduler.pool.free == 24


@pytest.mark.parametrize(("block", "said"), [(4, 2), (8, 3), (32, 2), (2, 2)])
def test_many_short_answers_with_drafts_are_what_the_ledger_says(block, said):
    """Stops, limits, bans and grammars among them; the books balance after each step."""
    accepted = check_drafted(block, said)
    assert accepted > (20 if block == 2 else 100)  # which leaves little room


def test_nobody_drafts_while_many_run_or_somebody_waits():
    """Rows are nearly free only while there are few."""
    bench = Bench()
    for number in range(MOST_LIVE):
        bench.scheduler.add(asked(str(number), [number, 1], Sampling(400)))
    drafted = max(bench.step().drafts for _ in range(20))
    assert 0 < drafted <= MOST_ROWS - MOST_LIVE
    bench.scheduler.add(asked("more", [20, 1], Sampling(400)))
    bench.step()
    assert not any(bench.step().drafts for _ in range(9))


def test_a_step_is_never_longer_than_it_may_be():
    """Where a step has hardly more rows than sequences, drafts take what there is."""
    limits = Limits(512, 2, 6, 32, 50, VOCAB, draft_tokens=64)
    scheduler = Scheduler(limits, BlockPool(50, 32))
    runner = LedgerRunner(50, 32, vocab_size=VOCAB, first=VOCAB - 1)
    scheduler.add(asked("a", [1, 1, 1, 1], Sampling(100)))
    most = 0
    while scheduler.has_work:
        plan = scheduler.plan()
        most = max(most, plan.rows)
        scheduler.apply(plan, runner.collect(runner.launch(plan)))
    assert most == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"grammar": "x"}, {"allowed": frozenset({1})}, {"bad_words": ((1,),)}, {"presence": 0.1},
        {"thinking": ThinkingBudget(3, (), (1,))}, {"frequency": 0.1}, {"repetition": 1.1},
        {"min_tokens": 2},
    ],
)  # fmt: skip
def test_who_goes_by_what_was_said_does_not_draft(changes):
    """Their state would have to go ahead with each draft, and back again."""
    plain = Sampling(9, temperature=0.7, top_k=4, logprobs=3, bias={1: 2.0})
    assert may_draft(asked("a", [1], plain))
    assert not may_draft(asked("a", [1], replace(plain, **changes)))
