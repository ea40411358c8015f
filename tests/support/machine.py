"""A Hypothesis state machine that drives the scheduler over the ledger and checks I1 to I13.

The ledger says what each request must answer, from its tokens alone; the machine submits, steps,
aborts and clears in any order and compares. See docs/testing.md for the list of invariants.
"""

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from engines.api import (
    Finish,
    FinishReason,
    GenerationRequest,
    RequestId,
    Sampling,
    SharedPrefix,
)
from engines.errors import InvalidRequest
from engines.ledger import LedgerRunner, check_plan, ledger_tokens
from engines.limits import Limits
from engines.scheduler import Scheduler
from engines.step import StepPlan
from kvcache.pool import BlockPool
from tests.support.audit import assert_quiet, audit_scheduler
from tests.support.grammars import forcing, letters

VOCAB = 50
FORCING = forcing()
# Tokens guessed ahead, and how many different ones are said: of few, guesses are often right.
DRAFTS = st.tuples(st.sampled_from([0, 1, 4, 4]), st.sampled_from([VOCAB, 3, 2]))

# Few stems, so that prefixes are shared, part midway, and come back after eviction.
prompts = st.builds(
    lambda stem, length, tail: [*stem[:length], *tail],
    st.sampled_from([(0, 1, 2, 0, 1, 1, 2, 0, 0, 1), (0, 1, 2, 2, 2, 2, 2, 2)]),
    st.integers(0, 10),
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
)
samplings = st.builds(
    Sampling,
    max_tokens=st.integers(1, 14),
    seed=st.integers(0, 3),
    temperature=st.sampled_from([0.0, 1.0]),
    min_tokens=st.integers(0, 3),
    stop_tokens=st.frozensets(st.integers(0, VOCAB - 1), max_size=6),
    bad_words=st.sampled_from([(), (), ((1,), (2, 0))]),
    grammar=st.sampled_from([None, None, None, FORCING.source]),  # forces several tokens at once
)


@dataclass
class Tracked:
    """What the machine knows of one open request."""

    request: GenerationRequest
    arrival: int
    step: int
    want: list[list[int]]
    got: list[list[int]]
    cached: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    admitted: bool = False


class SchedulerMachine(RuleBasedStateMachine):
    """Rules are what a driver may do."""

    live = Bundle("live")

    @initialize(
        size=st.integers(1, 4),
        blocks=st.integers(5, 14),
        width=st.integers(1, 5),
        spare=st.integers(4, 14),
        ageing=st.sampled_from([1, 8]),
        drafts=DRAFTS,
    )
    def build(self, size, blocks, width, spare, ageing, drafts):
        self.limits = Limits(
            max_context=24,
            max_running=width,
            tokens_per_step=width + spare,
            block_size=size,
            num_blocks=blocks,
            vocab_size=VOCAB,
            ageing_steps=ageing,
            draft_tokens=drafts[0],
        )
        self.first = VOCAB - drafts[1]
        self.scheduler = Scheduler(self.limits, BlockPool(blocks, size), tiers=self.tiers())
        self.runner = LedgerRunner(
            blocks, size, vocab_size=VOCAB, first=self.first, grammars=letters()
        )
        self.tracked: dict[str, Tracked] = {}
        self.ended: set[tuple[str, int]] = set()  # choices that owe nothing more
        self.unparted: set[tuple[str, int]] = set()  # ended before they could part: one token more
        self.hits = self.asked = 0
        self.count = 0
        self.broken = False

    def tiers(self):
        """Slower tiers for what is evicted: none here."""

    @rule(
        target=live,
        prompt=prompts,
        sampling=samplings,
        n=st.sampled_from([1, 1, 2, 3]),
        priority=st.integers(-1, 1),
        salt=st.sampled_from([(b"", 0)] * 5 + [(b"other", 0)] * 2 + [(b"", 4), (b"other", 4)]),
        whose=st.sampled_from([(b"", 1.0), (b"", 1.0), (b"a", 0.5), (b"b", 3.0)]),
    )
    def add(self, prompt, sampling, n, priority, salt, whose):
        rid = RequestId(f"r{self.count}")
        own, shared = salt
        request = GenerationRequest(rid, tuple(prompt), sampling, n, priority, own)
        request = replace(request, tenant=whose[0], weight=whose[1])
        if shared:
            tokens = min(shared, len(prompt))
            request = replace(request, shared=SharedPrefix(b"group", tokens))
        try:
            self.limits.check(request)
        except InvalidRequest:
            return rid  # refused: nothing of it may be seen again
        want = [self._answer(prompt, sampling, choice) for choice in range(n)]
        steps = self.scheduler.counters.steps
        tracked = Tracked(request, self.count, steps, want, [[] for _ in range(n)])
        tracked.open = set(range(n))
        self.tracked[rid] = tracked
        self.count += 1
        self.scheduler.add(request)
        return rid

    @rule(target=live, prompt=prompts, sampling=samplings, data=st.data())
    def go_on(self, prompt, sampling, data):
        """One choice of several goes on behind what another engine has emitted of it."""
        rid, n = RequestId(f"r{self.count}"), data.draw(st.integers(1, 3))
        choice = data.draw(st.integers(0, n - 1))
        want = self._answer(prompt, sampling, choice)
        cut = data.draw(st.integers(0, len(want) - 1))
        emitted = [tuple(want[:cut]) if each == choice else None for each in range(n)]
        request = GenerationRequest(rid, tuple(prompt), sampling, n, emitted=tuple(emitted))
        if shared := data.draw(st.sampled_from([0, 0, 0, 4])):
            tokens = min(shared, len(prompt))
            request = replace(request, shared=SharedPrefix(b"group", tokens))
        try:
            self.limits.check(request)
        except InvalidRequest:
            return rid
        steps = self.scheduler.counters.steps
        tracked = Tracked(request, self.count, steps, [want] * n, [want[:cut]] * n)
        tracked.open = {choice}
        self.tracked[rid] = tracked
        self.count += 1
        self.scheduler.add(request)
        return rid

    def _answer(self, prompt, sampling, choice):
        return ledger_tokens(
            prompt, sampling, vocab_size=VOCAB, choice=choice, first=self.first, grammars=letters()
        )

    @rule(rid=live, choice=st.sampled_from([None, None, 0, 1]))
    def abort(self, rid, choice):
        self._abort(rid, choice)

    @precondition(lambda self: self.tracked)
    @rule(data=st.data(), choice=st.sampled_from([None, 0, 0, 1, 1]))
    def abort_an_open_one(self, data, choice):
        """Most of the bundle has ended long ago: this one hits what still runs or waits."""
        self._abort(data.draw(st.sampled_from(sorted(self.tracked))), choice)

    def _abort(self, rid, choice):
        tracked = self.tracked.get(rid)
        ended = set() if tracked is None else set(tracked.open)
        ended &= ended if choice is None else {choice}
        self.scheduler.abort(rid, choice)
        if tracked is None:
            return
        self.ended |= {(rid, each) for each in ended}
        tracked.open -= ended
        if not tracked.open:
            del self.tracked[rid]
        if any(tracked.got) or not tracked.open:
            self._check_gone({(rid, each) for each in ended})
        else:
            self.unparted |= {(rid, each) for each in ended}

    def _check_gone(self, choices):
        """Nothing of these is held or waits (I9)."""
        line = {(e.request.id, e.choice) for e in self.scheduler.waiting}
        left = choices & (line | set(self.scheduler.tables()))
        assert not left, "an aborted choice is still there"

    @rule()
    def clear_cache(self):
        self.scheduler.pool.clear()

    @rule(times=st.integers(1, 4))
    def step(self, times):
        for _ in range(times):
            self._step()

    def _step(self):
        self.broken = True  # until the step is through: teardown must not hide what failed first
        before = dict(self.scheduler.tables())
        preempted = self.scheduler.counters.preemptions
        line = [each for each in self.scheduler.waiting if each.admitted]
        line = [each for each in line if not each.displaced]
        plan = self.scheduler.plan()
        self._check_returns(line)
        self._check_plan(plan)
        self._check_victims(before, self.scheduler.counters.preemptions - preempted)
        self._check_admissions(plan)
        if plan.rows:
            self._check_outcome(self.scheduler.apply(plan, self._run(plan)))
        self.broken = False

    def _run(self, plan):
        return self.runner.collect(self.runner.launch(plan))

    def _check_plan(self, plan: StepPlan):
        check_plan(plan)
        assert plan.rows <= self.limits.tokens_per_step  # I11
        assert len(plan.sample_lanes) - plan.drafts <= self.limits.max_running
        assert bool(plan.rows) == self.scheduler.has_work, "no progress"  # I10
        pool = self.scheduler.pool
        for block in {int(slot) // self.limits.block_size for slot in plan.write_slots}:
            assert pool.refs(block) == 1, "a shared block is written"  # I3
            assert block not in pool._index, "a sealed block is written"
        for segment in range(plan.segments):
            rows = int(plan.row_starts[segment + 1] - plan.row_starts[segment])
            self._check_exactness_rules(plan, segment, rows)

    def _check_exactness_rules(self, plan, segment, rows):
        """A prompt chunk has two tokens at least; output is computed one row at a time."""
        block = int(plan.write_slots[plan.row_starts[segment]]) // self.limits.block_size
        owners = [key for key, table in self.scheduler.tables().items() if block in table]
        prompt = len(self.tracked_prompt(owners[0][0]))
        past = int(plan.past[segment])
        if past < prompt:
            assert past + rows <= prompt, "output computed as a chunk"
            assert rows > 1 or prompt == 1, "a prompt chunk of one token"
        else:
            assert rows == 1, "output computed as a chunk"

    def tracked_prompt(self, rid):
        return next(s.request.prompt for s in self.scheduler._running if s.request.id == rid)

    def _check_victims(self, before, count):
        """Whoever was preempted is less senior than whoever was not."""
        if not count:
            return
        running = {(s.request.id, s.choice): s for s in self.scheduler._running}
        waiting = {(e.request.id, e.choice): e for e in self.scheduler.waiting}
        victims = [waiting[key] for key in before if key in waiting]
        kept = [running[key] for key in before if key in running]
        for victim in victims:
            for sequence in kept:
                other = victim.account != sequence.account
                if victim.displaced and (other or len(sequence.group) > len(victim.group)):
                    continue  # for another tenant: the least senior of those that free no more
                assert _seniority(victim) > _seniority(sequence), "a senior was preempted"

    def _check_returns(self, line):
        """The preempted come back in their order: whoever did is before whoever did not."""
        back = [sequence for sequence in line if sequence.lane >= 0]
        still = [sequence for sequence in line if sequence.lane < 0 and not sequence.ended]
        for one in back:
            for other in still:
                assert self._key(one) < self._key(other), "a preempted sequence was overtaken"

    def _key(self, sequence):
        aged = sequence.request.priority * self.limits.ageing_steps + sequence.step
        return (aged, sequence.arrival, sequence.choice)

    def _check_admissions(self, plan):
        """No request is admitted while one of its tenant that should go first still waits."""
        running = {s.request.id: s for s in self.scheduler._running}
        fresh = [t for t in self.tracked.values() if not t.admitted and t.request.id in running]
        line = list(self.scheduler.waiting)
        for tracked in fresh:
            tracked.admitted = True
            self._count_hit(tracked, running[tracked.request.id])
            for sequence in line:
                other = self.tracked.get(sequence.request.id)
                preempted = sequence.admitted and not sequence.displaced
                assert not preempted, "a newcomer went before a preempted one"
                if (
                    other is not None
                    and not other.admitted
                    and other.request.tenant == tracked.request.tenant
                ):
                    assert self._turn(tracked) < self._turn(other), "overtaken"
        counters = self.scheduler.counters
        assert (counters.prefix_hit_tokens, counters.prefix_query_tokens) == (self.hits, self.asked)
        self._check_work_conserving(plan)

    def _count_hit(self, tracked, sequence):
        """What is reported as cached is what lay computed in the table at admission (I8)."""
        lane, lanes = sequence.lane, self.scheduler._lanes
        found = (
            lanes.tables.sealed[lane] * self.limits.block_size
        )  # emitted tokens too, of one that goes on
        assert sequence.cached == min(found, sequence.prompt_len)
        self.hits += sequence.cached
        self.asked += len(tracked.request.prompt)

    def _turn(self, tracked):
        aged = tracked.request.priority * self.limits.ageing_steps + tracked.step
        return (aged, tracked.arrival)

    def _check_work_conserving(self, plan):
        """The head of the line waits only for a lane, for blocks, or for budget (I10)."""
        head = self.scheduler.waiting.head(self.scheduler.counters.steps)
        if head is None or self.limits.tokens_per_step - plan.rows < 3:
            return
        hit = self.scheduler.pool.match(head.namespace, head.log[:-1], head.turn)
        need = self.limits.blocks_for(len(head.log)) - len(hit)
        room = self.scheduler.pool.free - self.scheduler.pool.idle(hit)
        lanes = self.limits.max_running - self.scheduler.running
        # One block more: a hit may be given up so that no chunk has one token.
        assert lanes < len(head.group) or need + 1 > room, "the head fits and was left waiting"

    def _check_outcome(self, outcome):
        for index, (sequence, token) in enumerate(
            zip(outcome.sequences, outcome.tokens, strict=True)
        ):
            tracked = self.tracked.get(sequence.request.id)
            key = (sequence.request.id, sequence.choice)
            if key in self.unparted:
                self.unparted.discard(key)  # parted in this very step, and must be gone with it
                self._check_gone({key})
                continue
            assert key not in self.ended, "something follows the end"  # I6, I9
            got, want = tracked.got[sequence.choice], tracked.want[sequence.choice]
            got += [token, *outcome.more.get(index, ())]
            assert got == want[: len(got)], "the text depends on scheduling"  # I7, I12
            tracked.cached.add(sequence.cached)
            assert sequence.cached <= len(tracked.request.prompt)  # I8
            self._check_finish(tracked, sequence.choice, outcome.finishes.get(index))

    def _check_finish(self, tracked, choice, finish: Finish | None):
        got, want = tracked.got[choice], tracked.want[choice]
        assert (finish is not None) == (got == want), "ended early or late"  # I6
        if finish is None:
            return
        stopped = got[-1] in tracked.request.sampling.stop_tokens
        assert finish.reason is (FinishReason.STOP if stopped else FinishReason.LENGTH)
        assert finish.generated == len(got)  # I8
        assert len(tracked.cached) == 1, "the cached count changed"
        tracked.open.discard(choice)
        self.ended.add((tracked.request.id, choice))
        if not tracked.open:
            del self.tracked[tracked.request.id]

    @invariant()
    def books_balance(self):
        if hasattr(self, "scheduler"):
            audit_scheduler(self.scheduler)

    def teardown(self):
        if not hasattr(self, "scheduler") or self.broken:
            return
        for _ in range(2000):
            if not self.scheduler.has_work:
                break
            self._step()
        assert not self.tracked, "some request never ended"
        assert_quiet(self.scheduler)


def _seniority(sequence):
    return (sequence.request.priority, sequence.arrival, sequence.choice)
