"""Requests that go on behind what another engine has emitted, decision by decision."""

from dataclasses import replace

import numpy as np
import pytest

from engines.api import Finish, FinishReason, GenerationRequest, RequestId, Sampling
from engines.errors import InvalidRequest
from engines.ledger import LedgerRunner, check_plan, ledger_tokens
from engines.limits import Limits
from engines.mailbox import Mailbox
from engines.scheduler import Scheduler
from kvcache.pool import BlockPool
from tests.support.audit import assert_quiet, audit_scheduler

VOCAB = 500
PROMPT = tuple(range(1, 11))


class Bench:
    """A scheduler over the ledger, stepped by hand; `said` is what each choice emits."""

    def __init__(self, **changes: int) -> None:
        sizes = {
            "max_context": 200, "max_running": 4, "tokens_per_step": 16,
            "block_size": 4, "num_blocks": 50, "vocab_size": VOCAB,
        }  # fmt: skip
        self.limits = Limits(**{**sizes, **changes})
        pool = BlockPool(self.limits.num_blocks, self.limits.block_size)
        self.scheduler = Scheduler(self.limits, pool)
        self.runner = LedgerRunner(self.limits.num_blocks, self.limits.block_size, vocab_size=VOCAB)
        self.said: dict[tuple[str, int], list[int]] = {}
        self.cached: dict[tuple[str, int], int] = {}
        self.finishes: dict[tuple[str, int], Finish] = {}

    def step(self) -> list[int]:
        """One step; the rows of each segment, in order."""
        plan = self.scheduler.plan()
        check_plan(plan)
        shape = np.diff(plan.row_starts).tolist()
        outcome = self.scheduler.apply(plan, self.runner.collect(self.runner.launch(plan)))
        for index, (sequence, token) in enumerate(
            zip(outcome.sequences, outcome.tokens, strict=True)
        ):
            key = (sequence.request.id, sequence.choice)
            self.said.setdefault(key, []).append(token)
            self.cached[key] = sequence.cached
            if index in outcome.finishes:
                self.finishes[key] = outcome.finishes[index]
        audit_scheduler(self.scheduler)
        return shape

    def drain(self) -> None:
        while self.scheduler.has_work:
            self.step()
        assert_quiet(self.scheduler)


def request(name: str, *emitted: tuple[int, ...] | None, n: int = 1, **changes: object):
    sampling = Sampling(**{"max_tokens": 12, "temperature": 1.0, "seed": 3, **changes})
    return GenerationRequest(RequestId(name), PROMPT, sampling, n, emitted=emitted)


def whole(choice: int = 0) -> tuple[int, ...]:
    """What the ledger says of that prompt."""
    return tuple(
        ledger_tokens(PROMPT, request("a").sampling, vocab_size=VOCAB, choice=choice)
    )  # fmt: skip


def test_only_what_is_new_is_said_and_all_is_counted():
    """Seven tokens are emitted; five follow, and the finish tells twelve."""
    bench = Bench()
    bench.scheduler.add(request("a", whole()[:7]))
    bench.drain()
    assert bench.said == {("a", 0): list(whole()[7:])}
    assert bench.finishes["a", 0] == Finish(FinishReason.LENGTH, 12)


def test_the_prompt_is_a_chunk_and_the_emitted_tokens_single_rows():
    """As they were first computed: only so are logits the same, bit for bit."""
    bench = Bench()
    bench.scheduler.add(request("a", whole()[:3]))
    assert bench.step() == [10, 1, 1, 1]
    assert bench.said == {("a", 0): [whole()[3]]}


def test_the_emitted_tokens_wait_for_budget_like_any():
    """Two steps where one has no room for prompt and replay."""
    bench = Bench()
    bench.scheduler.add(request("a", whole()[:9]))
    assert bench.step() == [10, 1, 1, 1, 1, 1, 1]
    assert not bench.said
    assert bench.step() == [1, 1, 1]
    assert bench.said == {("a", 0): [whole()[9]]}


def test_open_choices_go_on_alone_and_ended_ones_stay_ended():
    """Three choices at different places, one of them over: no lane for it, no event of it."""
    bench = Bench(tokens_per_step=64)
    bench.scheduler.add(request("a", whole(0)[:9], None, (), n=3))
    bench.step()
    assert bench.scheduler.running == 2
    bench.drain()
    assert bench.said == {("a", 0): list(whole(0)[9:]), ("a", 2): list(whole(2))}
    assert bench.finishes["a", 0].generated == bench.finishes["a", 2].generated == 12


def test_cached_counts_tokens_of_the_prompt_alone():
    """The whole log lies in the cache; what is told, and counted, is the prompt's part."""
    bench = Bench()
    bench.scheduler.add(request("a"))
    bench.drain()
    bench.scheduler.add(request("b", whole()[:11]))
    assert bench.step() == [1], "all but the last token was found"
    assert bench.cached["b", 0] == 10
    assert bench.scheduler.counters.prefix_hit_tokens == 10
    assert bench.scheduler.counters.prefix_query_tokens == 20


def test_a_choice_that_goes_on_can_be_preempted_and_comes_back():
    """Its place after preemption is behind all it has said, here and elsewhere."""
    bench = Bench(num_blocks=12, max_running=3)
    for name in ("a", "b", "c"):
        bench.scheduler.add(replace(request(name, whole()[:2]), cache_salt=name.encode()))
    bench.drain()
    assert bench.scheduler.counters.preemptions > 0
    assert all(said == list(whole()[2:]) for said in bench.said.values())


@pytest.mark.parametrize("when", ["waiting", "running"])
def test_one_of_its_choices_can_be_ended(when):
    """At once, and nothing of it is held: there is no prompt they wait for together."""
    bench = Bench(tokens_per_step=64)
    bench.scheduler.add(request("a", whole(0)[:4], whole(1)[:6], n=2))
    if when == "running":
        bench.step()
    bench.scheduler.abort(RequestId("a"), 1)
    assert [choice for _, choice in bench.scheduler.tables()] == [0] * (when == "running")
    bench.drain()
    assert bench.said["a", 0] == list(whole(0)[4:])
    assert len(bench.said.get(("a", 1), ())) == (when == "running")


def test_all_of_it_can_be_aborted():
    """Waiting in the line or running: nothing is left."""
    bench = Bench(max_running=1, tokens_per_step=32)
    bench.scheduler.add(request("a", whole(0)[:4], whole(1)[:6]))
    bench.step()
    bench.scheduler.abort(RequestId("a"))
    assert_quiet(bench.scheduler)


def test_a_mailbox_ends_with_the_choices_that_go_on():
    """The ended choice is not waited for."""
    box = Mailbox(request("a", None, (), n=2), lambda *_: None)
    assert box.ended == {0}
    assert not box.done
    box.end_choice(1)
    assert box.done


@pytest.mark.parametrize(
    ("emitted", "changes", "words"),
    [
        (((), ()), {}, "2 choices, 2 of them open; 1 are"),
        ((None,), {}, "1 choices, 0 of them open"),
        (((), None, ()), {"n": 2}, "3 choices, 2 of them open; 2 are"),
        ((tuple(range(12)),), {}, "has ended"),
        (((1, 2, 3),), {"stop_tokens": frozenset({2, 9})}, "has ended"),
        (((), (1, 9)), {"n": 2, "stop_tokens": frozenset({2, 9})}, "has ended"),
        (((VOCAB,),), {}, "vocabulary of 500"),
        (((3, -1),), {}, "vocabulary of 500"),
    ],
    ids=str,
)
def test_what_cannot_have_been_emitted_is_refused(emitted, changes, words):
    """Before anything is queued, naming the field."""
    with pytest.raises(InvalidRequest, match=words) as caught:
        Bench().limits.check(request("a", *emitted, **changes))
    assert caught.value.param == "emitted"


def test_a_vector_has_nothing_to_go_on_with():
    """A pooled request starts over."""
    pooled = GenerationRequest(
        RequestId("a"), PROMPT, Sampling(max_tokens=2), pooled=True, emitted=((1,),)
    )
    with pytest.raises(InvalidRequest, match="not pooled"):
        Bench().limits.check(pooled)
