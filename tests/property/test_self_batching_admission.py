"""Admission to TensorRT-LLM: bounds hold whatever happens, and everybody comes in."""

from hypothesis import given
from hypothesis import strategies as st

from engines.self_batching.admission import Admission, Bounds, Ticket
from engines.self_batching.stats import EngineStats
from engines.trtllm.stats import read_stats

BOUNDS = Bounds(max_running=4, max_num_tokens=32, num_blocks=20, block_size=4)
SEQUENCES = st.tuples(
    st.integers(1, 60), st.integers(1, 30), st.integers(-3, 3), st.floats(0, 50)
)  # fmt: skip
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), SEQUENCES),
        st.tuples(st.sampled_from(["start", "leave", "quit"]), st.integers(0, 50)),
        st.tuples(st.just("told"), st.integers(0, 2)),
    ),
    max_size=60,
)


class World:
    """An admission, and what it should know."""

    def __init__(self):
        self.admission = Admission(BOUNDS, ageing_s=5.0)
        self.waiting: list[Ticket] = []
        self.inside: list[Ticket] = []
        self.queued = 0

    def act(self, kind, value):
        match kind:
            case "add":
                prompt, more, priority, now = value
                ticket = Ticket(priority * 5.0 + now, prompt, prompt + more, priority)
                self.waiting.append(ticket)
                self.admission.add(ticket, now)
            case "told":
                self.queued = value
                self.admission.observe(EngineStats(queued=value))
            case "quit" if self.waiting:
                self.admission.leave(self.waiting.pop(value % len(self.waiting)))
            case "start" if self.inside:
                ticket = self.inside[value % len(self.inside)]
                self.admission.started(ticket, value % (ticket.prompt + 1))
            case "leave" if self.inside:
                ticket = self.inside.pop(value % len(self.inside))
                self.admission.leave(ticket)
                self.admission.leave(ticket)
        self.admit()

    def admit(self):
        alone = not self.inside
        admitted = self.admission.admit(50.0)
        for ticket in admitted:
            # Nobody overtakes: its key is the least of all that wait.
            assert ticket.owner == min(each.owner for each in self.waiting)
            self.waiting.remove(ticket)
            self.inside.append(ticket)
        if admitted and not (alone and len(admitted) == 1):
            self.check()

    def check(self):
        admission = self.admission
        assert not self.queued or len(self.inside) == 1
        assert admission.running <= BOUNDS.max_running
        starting = [each for each in self.inside if each.state.name == "STARTING"]
        if len(starting) > 1:
            assert admission.starting_tokens <= 2 * BOUNDS.max_num_tokens
        if len(self.inside) > 1:
            assert admission.blocks <= BOUNDS.num_blocks


@given(ACTS)
def test_bounds_hold_and_the_books_balance(acts):
    """Whatever comes, starts, ends or gives up, in any order."""
    world = World()
    for kind, value in acts:
        world.act(kind, value)
        admission = world.admission
        assert admission.running == len(world.inside)
        assert admission.waiting == len(world.waiting)
        assert admission.waiting_tokens == sum(each.prompt for each in world.waiting)
        assert admission.blocks == sum(each.blocks for each in world.inside)
        assert admission.running or not admission.waiting  # an idle engine is given work


@given(st.lists(SEQUENCES, max_size=40))
def test_everybody_comes_in(sequences):
    """Each that is in leaves; the line then empties, however large its members."""
    world = World()
    for sequence in sequences:
        world.act("add", sequence)
    for _ in sequences:
        world.act("leave", 0)
    assert not world.waiting
    assert not world.inside
    assert world.admission.blocks == world.admission.starting_tokens == 0


def test_statistics_are_read_as_far_as_they_are_there():
    """Versions tell more or less; nothing is needed."""
    assert read_stats({}) == EngineStats()
    told = {
        "iter": 7,
        "inflightBatchingStats": {"numQueuedContextRequests": 2, "numQueuedGenRequests": 1},
        "kvCacheStats": {"usedNumBlocks": 3, "maxNumBlocks": 9},
    }
    assert read_stats(told) == EngineStats(7, 3, 3, 9)


def test_who_was_served_least_is_handed_over_next():
    """A tenant that has filled the line holds up no other, and the other pays for its own."""
    admission = Admission(BOUNDS, ageing_s=5.0)
    flood = [Ticket(("flood", number), 8, 12, tenant=b"flood") for number in range(30)]
    for ticket in flood:
        admission.add(ticket, 0.0)
    inside = admission.admit(1.0)
    light = [Ticket(("light", number), 8, 12, tenant=b"light") for number in range(60)]
    for ticket in light:
        admission.add(ticket, 2.0)
    order = []
    while inside:
        ticket = inside.pop(0)
        admission.started(ticket, 0)
        admission.told(ticket, 4)
        admission.leave(ticket)
        handed = admission.admit(3.0)
        order += [each.owner[0] for each in handed]
        inside += handed
    assert order[:3] == ["light"] * 3
    credit = 8 * 32  # steps of tokens: what a newcomer is ahead by; each costs 8 + 2 * 4
    ahead = order.index("flood")
    assert ahead <= credit / 16 + 4
    later = order[ahead : ahead + 20]
    assert abs(later.count("light") - later.count("flood")) <= 8
    assert len(order) + len(admission.admit(4.0)) + 4 >= 90
    assert not admission._service


@given(ACTS)
def test_no_account_is_left(acts):
    """Whoever leaves, from the line or from the engine, is forgotten with the last."""
    world = World()
    for kind, value in acts:
        world.act(kind, value)
    for ticket in world.waiting + world.inside:
        world.admission.leave(ticket)
        world.admission.leave(ticket)
    assert not world.admission._service
    assert not world.admission._line
