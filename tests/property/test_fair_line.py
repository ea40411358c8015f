"""The line between tenants, against a search through all that wait."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.fair_line import FairLine
from engines.fairness import Service

AGEING = 4
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3), st.integers(-2, 2)),
        st.tuples(st.just("take"), st.just(0), st.just(0)),
        st.tuples(st.just("remove"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("charge"), st.integers(0, 3), st.integers(1, 40)),
        st.tuples(st.just("wait"), st.integers(1, 12), st.just(0)),
    ),
    max_size=60,
)


@dataclass(frozen=True)
class Item:
    """One that waits."""

    account: int
    priority: int
    came: int
    number: int


class World:
    """A line, and the items that should be in it."""

    def __init__(self):
        self.service = Service(credit=10)
        self.accounts = [self.service.enter(b"%d" % number) for number in range(4)]
        self.line = FairLine(AGEING, self.service)
        self.items: list[Item] = []
        self.now = self.count = 0

    def act(self, kind, value, more):
        match kind:
            case "push":
                self.count += 1
                item = Item(self.accounts[value], more, self.now, self.count)
                self.items.append(item)
                self.line.push(item, item.account, more, self.now, (self.count, 0))
            case "take" if self.items:
                head = self.line.head(self.now)
                self.line.take(head.account)
                self.items.remove(head)
            case "remove" if self.items:
                item = self.items.pop(value % len(self.items))
                assert self.line.remove(item, item.account)
                assert not self.line.remove(item, item.account)
            case "charge":
                self.service.charge(self.accounts[value], more)
            case "wait":
                self.now += value

    def turn(self, item):
        best = min(each.priority for each in self.items)
        rank = max(best, item.priority - (self.now - item.came) // AGEING)
        key = item.priority * AGEING + item.came
        return (rank, self.service.of(item.account), key, item.number)


@settings(deadline=None)
@given(ACTS)
def test_the_head_is_the_best_of_all_that_wait(acts):
    """By rank, then service, then key: over every item, not only the first of each tenant."""
    world = World()
    for act in acts:
        world.act(*act)
        assert set(world.line) == set(world.items)
        assert (len(world.line), bool(world.line)) == (len(world.items), bool(world.items))
        want = min(world.items, key=world.turn) if world.items else None
        assert world.line.head(world.now) == want


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 9)), max_size=30))
def test_one_tenant_alone_goes_by_its_aged_key(arrivals):
    """Whatever the time is: ageing never changes the order of two that wait."""
    service = Service(credit=10)
    line, account, now = FairLine(AGEING, service), service.enter(b""), 0
    keys = []
    for number, (priority, gap) in enumerate(arrivals):
        now += gap
        keys.append((priority * AGEING + now, number))
        line.push(number, account, priority, now, (number, 0))
    taken = []
    while line:
        now += 3
        taken.append(line.head(now))
        line.take(account)
    assert taken == [number for _, number in sorted(keys)]


def test_ageing_of_nothing_ranks_all_alike():
    """As with an engine that is told to take its requests in the order in which they come."""
    service = Service(credit=0)
    line = FairLine(0, service)
    for number, priority in enumerate([5, 0, -5]):
        line.push(number, service.enter(b"%d" % number), priority, number, (number, 0))
    assert line.head(9) == 0
