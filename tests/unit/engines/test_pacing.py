"""The budget of time, by value: a step takes as long as a model of it says, and no clock runs."""

import random
import statistics

import pytest

from engines.api import GenerationRequest, RequestId, Sampling
from engines.ledger import LedgerRunner, ledger_tokens
from engines.limits import Limits
from engines.pacing import FIRST_ROWS, LEAST_ROWS, Pace, fit, keys_of
from engines.scheduler import Scheduler
from kvcache.pool import BlockPool

VOCAB = 500
MODEL = (4e-3, 2e-4, 1e-7)  # seconds: of a step, of each row, of each key that a row attends to


def seconds(plan, model=MODEL) -> float:
    """How long a machine of this model takes for a plan."""
    base, row, key = model
    return base + row * plan.rows + key * (int(plan.positions.sum()) + plan.rows)


class Bench:
    """A scheduler that keeps pace with a simulated machine."""

    def __init__(self, target_s: float, *, noise: float = 0.0) -> None:
        limits = Limits(8192, 16, 2048, 16, 2048, VOCAB, step_target_s=target_s)
        self.scheduler = Scheduler(limits, BlockPool(2048, 16))
        self.runner = LedgerRunner(2048, 16, vocab_size=VOCAB)
        self.random, self.noise = random.Random(1), noise
        self.said: dict[str, list[int]] = {}
        self.first = 0.0  # seconds that the first step takes beyond what the model says

    def add(self, name: str, tokens: int, new: int, **sampling: int) -> GenerationRequest:
        prompt = tuple((index * 7 + len(name)) % VOCAB for index in range(tokens))
        request = GenerationRequest(RequestId(name), prompt, Sampling(new, seed=3, **sampling))
        self.scheduler.add(request)
        return request

    def step(self) -> tuple[float, int]:
        """One step: its seconds and its rows."""
        plan = self.scheduler.plan()
        took_s = seconds(plan) * (1 + self.noise * self.random.random()) + self.first
        self.first = 0.0
        result = self.runner.collect(self.runner.launch(plan))
        outcome = self.scheduler.apply(plan, result, took_s)
        for sequence, token in zip(outcome.sequences, outcome.tokens, strict=True):
            self.said.setdefault(sequence.request.id, []).append(token)
        return took_s, plan.rows

    def until_said(self, name: str) -> list[float]:
        """Seconds of each step up to the one that says the first token of a request."""
        times = []
        while name not in self.said:
            times.append(self.step()[0])
        return times


def busy(target_s: float, *, noise: float = 0.0) -> Bench:
    """Four chats that decode, and a machine that has been seen to compute prompts."""
    bench = Bench(target_s, noise=noise)
    for number in range(4):
        bench.add(f"chat{number}", 200, 5000)
        for _ in range(10):
            bench.step()
    return bench


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_long_prompt_does_not_lift_the_gap_between_tokens_above_twice_the_target(noise):
    """2,048 tokens beside running chats: p99 of the steps within 2 x 30 ms, most within 1.3."""
    bench = busy(30e-3, noise=noise)
    bench.add("long", 2048, 4)
    times = bench.until_said("long")
    assert statistics.quantiles(times, n=100)[98] <= 2 * 30e-3
    assert statistics.median(times) <= 1.3 * 30e-3
    least = seconds_of_prompt(2048) / (30e-3 - 4e-3 - 4 * 2e-4)  # if each step were full
    assert len(times) <= 1.5 * (1 + noise) * least


def seconds_of_prompt(tokens: int) -> float:
    _, row, key = MODEL
    return row * tokens + key * keys_of(0, tokens)


def test_without_a_pace_the_same_prompt_stops_the_chats():
    """What the budget of rows alone does: one step of hundreds of milliseconds."""
    bench = busy(0.0)
    bench.add("long", 2048, 4)
    assert max(bench.until_said("long")) > 10 * 30e-3


def test_who_computes_alone_takes_the_whole_step():
    """Nobody decodes, so nobody waits for the step: all the rows that a first one may have."""
    bench = Bench(1e-3)
    bench.add("only", FIRST_ROWS, 2)
    assert bench.step()[1] == FIRST_ROWS


def test_a_target_that_decoding_misses_already_leaves_prompts_some_rows():
    """At least a few rows a step, or half of what decoding takes: nobody starves."""
    bench = busy(1e-6)
    bench.add("long", 400, 4)
    _, rows = bench.step()
    assert rows >= 4 + LEAST_ROWS
    assert len(bench.until_said("long")) <= 400 // LEAST_ROWS + 1


def test_before_anything_is_known_prompts_get_the_least():
    """A first prompt beside a stream whose own prompt was not seen is computed in small pieces."""
    pace = Pace(30e-3)
    pace.begin(rows=1, keys=10, waiting=1)
    assert pace.within(500, 0) == LEAST_ROWS
    pace.take(0, LEAST_ROWS)
    assert pace.within(500, LEAST_ROWS) == 0


def test_hours_of_decoding_do_not_make_forgotten_what_a_prompt_costs():
    """Steps that decode are forgotten by steps that decode, and others by others."""
    pace = Pace(50e-3)
    for rows in (100, 300, 200, 400):
        pace.observe(rows, keys_of(0, rows), 1e-3 + rows * 1e-3, prompts=True)
    for _ in range(10_000):
        pace.observe(8, 8 * 300, 9e-3, prompts=False)
    pace.begin(8, 8 * 300, 1)
    assert 30 <= pace.within(500, 0) <= 45


def test_a_pause_of_something_else_is_not_taken_for_the_cost_of_rows():
    """One step that took a second changes little; a machine that became slow is learnt."""
    pace = Pace(50e-3)

    def observe(count, row_s, extra=0.0):
        for number in range(count):
            rows = 50 + 10 * (number % 5)
            pace.observe(rows, keys_of(0, rows), 2e-3 + rows * row_s + extra, prompts=True)

    observe(100, 2e-4)
    observe(1, 2e-4, extra=1.0)
    pace.begin(1, 1, 1)
    assert pace.within(5000, 0) > 90
    observe(300, 2e-3)
    pace.begin(1, 1, 1)
    assert 15 <= pace.within(5000, 0) <= 35


def test_the_fit_finds_the_model():
    """Exact times give back a, b and c; features that vary as one give what rows cost."""
    pairs = [(rows, keys) for rows in (1, 10, 100) for keys in (5, 500, 50_000)]
    base, row, key = MODEL
    sums = [0.0] * 9
    for x, y in pairs:
        t = base + row * x + key * y
        for place, one in enumerate((1, x, y, x * x, x * y, y * y, t, x * t, y * t)):
            sums[place] += one
    assert fit(sums) == pytest.approx(MODEL, rel=1e-6)
    assert fit([0.0] * 9) == (0.0, 0.0, 0.0)


def test_one_step_that_was_seen_does_not_lift_the_limit():
    """Nothing tells the cost of a row from that of a step yet: all of it is taken for the rows'."""
    for seen in ([(512, 15.9)], [(512, 15.9), (512, 16.1)], [(16, 20.0), (512, 15.9)]):
        pace = Pace(60e-3)
        for rows, took in seen:
            pace.observe(rows, keys_of(0, rows), took, prompts=True)
        pace.begin(0, 0, 1)
        assert pace.within(5000, 0) <= 512
        pace.begin(1, 100, 1)
        assert pace.within(5000, 0) <= 40


def test_a_step_has_no_more_than_twice_the_rows_of_any_before():
    """However cheap rows looked: what is learnt from few of them is not known of thousands."""
    pace = Pace(60e-3)
    for rows in (20, 40, 60):
        pace.observe(rows, 0, 1e-3 + rows * 1e-9, prompts=True)
    pace.begin(0, 0, 1)
    assert pace.within(5000, 0) == 120
    pace.take(0, 100)
    assert pace.within(5000, 100) == 20


def test_a_slow_first_step_is_not_learnt_from():
    """It packs weights and makes kernels; a step later prompts beside streams are cut as ever."""
    bench = Bench(30e-3)
    bench.first = 3.0
    for number in range(4):
        bench.add(f"chat{number}", 200, 5000)
    for _ in range(30):
        bench.step()
    bench.add("long", 2048, 4)
    assert statistics.median(bench.until_said("long")) <= 1.3 * 30e-3


def test_only_those_count_as_waiting_who_could_begin():
    """All lanes decode: whoever comes for a lane that becomes free has one target, not four."""
    bench = Bench(30e-3)
    for number in range(16):
        bench.add(f"chat{number}", 50, 5000 if number else 40)
    for _ in range(30):
        bench.step()
    for number in range(60):
        bench.add(f"late{number}", 600, 5)
    times = [bench.step()[0] for _ in range(100)]
    assert max(times) <= 2 * 30e-3
    assert "late5" in bench.said


def test_prompts_that_are_scored_have_few_rows_in_a_step():
    """Each row has logits as wide as the vocabulary: 512 of them at once."""
    bench = Bench(0.0)
    bench.add("scored", 1500, 2, prompt_logprobs=0)
    assert bench.step()[1] == 512
    assert len(bench.until_said("scored")) == 2
    bench.add("plain", 1500, 2)
    assert bench.step()[1] >= 1500


def test_the_fit_is_never_below_nothing():
    """Whatever the noise: a negative cost would let a step grow without end."""
    randomness = random.Random(5)
    for _ in range(300):
        sums = [0.0] * 9
        for _ in range(randomness.randint(1, 20)):
            x, y, t = (randomness.uniform(0, 100) for _ in range(3))
            for place, one in enumerate((1, x, y, x * x, x * y, y * y, t, x * t, y * t)):
                sums[place] += one
        assert min(fit(sums)) >= -1e-9


def test_what_is_said_does_not_depend_on_the_pace():
    """Smaller chunks, the same tokens."""
    bench = busy(5e-3)
    request = bench.add("long", 700, 20)
    while len(bench.said.get("long", ())) < 20:
        bench.step()
    want = ledger_tokens(request.prompt, request.sampling, vocab_size=VOCAB)
    assert bench.said["long"] == want


def settled(target_s: float) -> Pace:
    """A pace that has seen what steps of the machine take."""
    pace = Pace(target_s)
    base, row, key = MODEL
    for rows in (1, 4, 60, 130, 500, 900):
        for keys in (10 * rows, 300 * rows):
            pace.observe(rows, keys, base + row * rows + key * keys, prompts=rows > 4)
    return pace


@pytest.mark.parametrize(
    ("decoding", "waiting", "times"), [(4, 1, 1), (4, 4, 1), (4, 8, 2), (4, 16, 4), (4, 400, 4)]
)
def test_steps_are_longer_where_more_wait_than_decode(decoding, waiting, times):
    """Twice as many waiting: twice the target; four times it at the most."""
    pace = settled(30e-3)
    pace.begin(decoding, 100 * decoding, waiting)
    rows = pace.within(5000, 0)
    base, row, key = MODEL
    took = base + row * (decoding + rows) + key * (100 * decoding + keys_of(0, rows))
    assert took == pytest.approx(times * 30e-3, rel=0.02)


def test_steps_that_nobody_decodes_in_end_as_well():
    """Eight times the target: a prompt of 5,000 tokens is cut, so that others get their turn."""
    pace = settled(30e-3)
    pace.begin(0, 0, 1)
    rows = pace.within(5000, 0)
    base, row, key = MODEL
    assert base + row * rows + key * keys_of(0, rows) == pytest.approx(8 * 30e-3, rel=0.02)
    unknown = Pace(30e-3)
    unknown.begin(0, 0, 1)
    assert unknown.within(5000, 0) == FIRST_ROWS
