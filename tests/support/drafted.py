"""Many short answers with drafts that are often right, against what the ledger says without."""

import numpy as np

from engines.api import GenerationRequest, RequestId, Sampling
from engines.ledger import LedgerRunner, check_plan, ledger_tokens
from engines.limits import Limits
from engines.scheduler import Scheduler
from kvcache.pool import BlockPool
from tests.support.audit import assert_quiet, audit_scheduler
from tests.support.grammars import forcing, letters

VOCAB = 50
_STOP = VOCAB - 2
_PROMPTS = [
    (48, 49, 48, 48, 49, 49, 48, 49, 48),
    (1, 2, 1, 2, 1),
    (49, 49, 49, 49),
    (7, 48, 47, 48),
]


def _samplings(seed: int) -> list[Sampling]:
    warm, cold = Sampling(30, seed=seed), Sampling(30, seed=seed, temperature=0.0)
    stop = frozenset({_STOP})
    return [
        warm, cold, Sampling(5 + seed, seed=seed), Sampling(30, seed=seed, stop_tokens=stop),
        Sampling(30, seed=seed, stop_tokens=stop, min_tokens=6),
        Sampling(20, seed=seed, bad_words=((48, 49),)), Sampling(20, grammar=forcing().source),
    ]  # fmt: skip


def check_drafted(block: int, said: int, drafts: int = 4) -> int:
    """Ask for all of it, two at a time; how many drafted tokens were accepted.

    Raises AssertionError where anything differs, or the books do not balance.
    """
    limits = Limits(64, 3, 20, block, 30, VOCAB, draft_tokens=drafts)
    scheduler = Scheduler(limits, BlockPool(30, block))
    first = VOCAB - said
    runner = LedgerRunner(30, block, vocab_size=VOCAB, first=first, grammars=letters())
    wanted: dict[str, list[int]] = {}
    got: dict[str, list[int]] = {}
    for seed in range(4):
        for at, sampling in enumerate(_samplings(seed)):
            for place, prompt in enumerate(_PROMPTS):
                name = f"{seed} {at} {place}"
                scheduler.add(GenerationRequest(RequestId(name), prompt, sampling))
                got[name], wanted[name] = [], ledger_tokens(
                    prompt, sampling, vocab_size=VOCAB, first=first, grammars=letters()
                )  # fmt: skip
                _drain(scheduler, runner, got, keep=1)  # who waits keeps others from drafting
    _drain(scheduler, runner, got, keep=0)
    assert got == wanted
    assert_quiet(scheduler)
    return scheduler.counters.accepted_tokens


def _drain(scheduler, runner, got, *, keep: int) -> None:
    """Step until at most `keep` are left."""
    while scheduler.running + len(scheduler.waiting) > keep:
        plan = scheduler.plan()
        check_plan(plan)
        assert plan.rows, "no progress"
        lanes = plan.segment_lanes.repeat(np.diff(plan.row_starts))
        last = scheduler._lanes.limit[lanes] - 2  # what is said last is never computed
        assert (plan.positions <= last).all(), "a draft beyond the end"
        outcome = scheduler.apply(plan, runner.collect(runner.launch(plan)))
        for index, sequence in enumerate(outcome.sequences):
            event = outcome.event(index)
            got[sequence.request.id] += event.tokens
            ended = event.finish is not None
            assert not ended or event.finish.generated == len(got[sequence.request.id])
        audit_scheduler(scheduler)
