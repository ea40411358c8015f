"""What a tenant may count on, whoever else is there: the scheduler over the ledger, in steps."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.api import GenerationRequest, RequestId, Sampling
from engines.ledger import LedgerRunner
from engines.limits import Limits
from engines.scheduler import Scheduler
from kvcache.pool import BlockPool

VOCAB = 97


@dataclass
class Engine:
    """A scheduler over the ledger with room for all blocks, stepped by hand."""

    lanes: int
    budget: int
    ageing: int = 256
    seen: dict[str, int] = field(default_factory=dict)  # request -> step of its first token
    came: dict[str, int] = field(default_factory=dict)
    tokens: Counter[bytes] = field(default_factory=Counter)  # generated, by tenant

    def __post_init__(self):
        blocks = self.lanes * 128
        limits = Limits(4096, self.lanes, self.budget, 32, blocks, VOCAB, ageing_steps=self.ageing)
        self.scheduler = Scheduler(limits, BlockPool(blocks, 32))
        self.runner = LedgerRunner(blocks, 32, vocab_size=VOCAB)
        self.count = 0

    def add(self, tenant: bytes, prompt: int, new: int, **more) -> str:
        """A request with a prompt of its own, so that no cache helps it."""
        self.count += 1
        name = f"{tenant.decode()}-{self.count}"
        tokens = tuple((self.count * 31 + place * 7) % VOCAB for place in range(prompt))
        request = GenerationRequest(
            RequestId(name), tokens, Sampling(new, temperature=0.0), tenant=tenant,
            cache_salt=name.encode(), **more,
        )  # fmt: skip
        self.came[name] = self.step_number
        self.scheduler.add(request)
        return name

    @property
    def step_number(self) -> int:
        return self.scheduler.counters.steps

    def step(self):
        plan = self.scheduler.plan()
        outcome = self.scheduler.apply(plan, self.runner.collect(self.runner.launch(plan)))
        for sequence in outcome.sequences:
            self.tokens[sequence.request.tenant] += 1
            self.seen.setdefault(sequence.request.id, self.step_number)

    def ttft(self, name: str) -> int:
        """Steps from a request's arrival to its first token."""
        return self.seen[name] - self.came[name]


def p99(values):
    """The 99th percentile, from above."""
    return sorted(values)[-1 - len(values) // 100]


def visits(engine: Engine, flood_per_step: float) -> list[int]:
    """Times to first token of a light tenant that asks every 40 steps, beside a flood."""
    names, owed = [], 0.0
    for number in range(6000):
        owed += flood_per_step
        while owed >= 1:
            owed -= 1
            engine.add(b"flood", 50, 32)
        if number % 40 == 39:
            names.append(engine.add(b"light", 1000, 8))
        if engine.scheduler.has_work:
            engine.step()
        else:
            engine.scheduler.counters.steps += 1  # time passes
    while not all(name in engine.seen for name in names):
        engine.step()
    return [engine.ttft(name) for name in names]


def test_a_flood_cannot_double_the_wait_of_a_light_tenant():
    """At five times what the engine can do, the p99 to the first token is within twice idle's.

    Sixteen lanes and 32 tokens each: half a request per step is all there is room for.
    """
    idle = p99(visits(Engine(lanes=16, budget=160), 0.0))
    flooded = Engine(lanes=16, budget=160)
    assert p99(visits(flooded, 5 * 0.5)) <= 2 * idle
    assert len(flooded.scheduler.waiting) > 5000  # it was a flood indeed


@given(
    ours=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    prompts=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    new=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
@settings(max_examples=15, deadline=None)
def test_tenants_that_always_wait_are_served_by_their_weights(ours, prompts, new):
    """Two tenants with endless lines share the tokens, as these cost, by weight."""
    engine, finished = Engine(lanes=4, budget=64), Counter()
    line = {b"a": ours, b"b": 1.0}
    for tenant, weight in line.items():
        for _ in range(900):
            place = int(tenant == b"b")
            engine.add(tenant, prompts[place], new[place], weight=weight)
    for _ in range(700):
        engine.step()
        if (
            min(len([s for s in engine.scheduler.waiting if s.request.tenant == t]) for t in line)
            < 2
        ):
            break
    for name in engine.seen:
        finished[name[0].encode()] += 1
    served = {
        tenant: (2 * engine.tokens[tenant] + finished[tenant] * prompts[int(tenant == b"b")])
        / weight
        for tenant, weight in line.items()
    }
    # They differ by the credit of 8 steps and by what is on its way in the lanes, no more.
    on_the_way = 4 * (2 * 20 + 60) / min(line.values())
    assert abs(served[b"a"] - served[b"b"]) <= 8 * 64 + 2 * on_the_way


@given(data=st.data(), lanes=st.integers(1, 3), priority=st.integers(-2, 2))
@settings(max_examples=60, deadline=None)
def test_nobody_waits_for_ever(data, lanes, priority):
    """However others flood in whatever class, a newcomer's wait is bounded.

    First its class: one `ageing` for each class that it is worse. Then nobody who came later goes
    before it, and of those who came earlier only requests that are as little served.
    """
    ageing, longest = 8, 6
    engine = Engine(lanes, 24, ageing)
    tenants = [b"x", b"y", b"z"]
    burst = st.lists(
        st.tuples(st.sampled_from(tenants), st.integers(2, 30), st.integers(1, longest),
                  st.integers(-2, 2)),
        max_size=3,
    )  # fmt: skip
    for _ in range(data.draw(st.integers(0, 20))):
        for tenant, prompt, new, rank in data.draw(burst):
            engine.add(tenant, prompt, new, priority=rank)
        if engine.scheduler.has_work:
            engine.step()
    before = len(engine.scheduler.waiting)
    victim = engine.add(b"victim", 20, 2, priority=priority)
    # Each that may go before it holds a lane for its prompt and its tokens.
    bound = (priority + 2) * ageing + (before + lanes + 1) * (longest + 8)
    for _ in range(bound):
        for tenant in tenants:
            engine.add(tenant, 10, longest, priority=-2)
        engine.step()
        if victim in engine.seen:
            return
    raise AssertionError("it starves")


def test_a_long_prompt_does_not_hold_up_everybody():
    """A short prompt of another tenant passes one that takes many steps, once its is served."""
    engine = Engine(lanes=4, budget=64)
    engine.add(b"one", 3000, 2)
    for _ in range(12):
        engine.step()
    short = engine.add(b"other", 40, 2)
    for _ in range(4):
        engine.step()
    assert engine.ttft(short) <= 3


def test_what_is_computed_again_is_charged_once():
    """Who is preempted pays nothing for the recompute: the shortage is not its doing."""
    limits = Limits(64, 4, 16, 4, 10, VOCAB)
    scheduler = Scheduler(limits, BlockPool(10, 4))
    runner = LedgerRunner(10, 4, vocab_size=VOCAB)
    for place, tenant in enumerate((b"a", b"b", b"c")):
        prompt = tuple(range(place, place + 9))
        sampling = Sampling(16, temperature=0.0)
        scheduler.add(
            GenerationRequest(RequestId(tenant.decode()), prompt, sampling, tenant=tenant)
        )
    prompts, charge = Counter(), scheduler._meter.service.charge

    def noted(account, cost):
        prompts[account] += cost
        charge(account, cost)

    scheduler._meter.service.charge = noted
    while scheduler.has_work:
        plan = scheduler.plan()
        scheduler.apply(plan, runner.collect(runner.launch(plan)))
        scheduler.pool.clear()  # so that nothing of whoever is preempted is found again
    assert scheduler.counters.preemptions > 0
    assert 0 < max(prompts.values()) <= 9
