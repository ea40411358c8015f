"""Admission: what enters, what is refused, and when to come back."""

import pytest

from gateway.admission import Admission, DrainRate
from openai_compat.errors import Overloaded


def admission(sequences=4, tokens=100):
    return Admission(max_sequences=sequences, max_waiting_tokens=tokens)


def test_calls_enter_until_the_sequences_are_taken():
    """The limit counts sequences, not calls."""
    gate = admission(sequences=4)
    gate.admit(3, 1, now=0)
    gate.admit(1, 1, now=0)
    with pytest.raises(Overloaded):
        gate.admit(1, 1, now=0)


def test_prompts_wait_within_a_token_budget():
    """Long prompts fill the queue sooner than short ones."""
    gate = admission(tokens=100)
    gate.admit(1, 90, now=0)
    with pytest.raises(Overloaded):
        gate.admit(1, 11, now=0)
    gate.admit(1, 10, now=0)


def test_a_first_token_makes_room_for_prompts():
    """A prompt that is computed waits no more."""
    gate = admission(tokens=100)
    ticket = gate.admit(1, 90, now=0)
    gate.computed(ticket, 90)
    gate.admit(1, 100, now=0)


def test_a_call_larger_than_the_budget_enters_an_idle_server():
    """Otherwise it could never be served at all."""
    gate = admission(sequences=2, tokens=10)
    gate.admit(3, 1000, now=0)
    assert gate.sequences == 3


def test_release_gives_back_exactly_once():
    """However often an ending call says so."""
    gate = admission()
    first, second = gate.admit(2, 30, now=0), gate.admit(1, 20, now=0)
    gate.release(first, now=1)
    gate.release(first, now=2)
    assert (gate.sequences, gate.waiting_tokens) == (1, 20)
    gate.release(second, now=3)
    assert (gate.sequences, gate.waiting_tokens) == (0, 0)


def test_check_refuses_before_anything_is_read():
    """A full server says so without a body."""
    gate = admission(sequences=1)
    gate.check(now=0)
    gate.admit(1, 1, now=0)
    with pytest.raises(Overloaded):
        gate.check(now=0)


def test_retry_after_follows_the_measured_drain_rate():
    """Two sequences a second: room for one more in about half a second, for ten in about five."""
    gate = admission(sequences=10, tokens=10**6)
    tickets = [gate.admit(1, 1, now=0) for _ in range(10)]
    for step in range(1, 61):
        gate.release(tickets.pop(0), now=step / 2)
        tickets.append(gate.admit(1, 1, now=step / 2))
    assert gate.retry_after_s(10, now=30) == pytest.approx(5, rel=0.05)


def test_retry_after_is_a_second_when_nothing_is_known():
    """And never less, nor more than a minute."""
    gate = admission(sequences=1)
    ticket = gate.admit(1, 1, now=0)
    assert gate.retry_after_s(1, now=0) == 1
    gate.release(ticket, now=1)
    gate.admit(1, 1, now=1)
    assert gate.retry_after_s(1, now=10_000) <= 60


def test_refusal_names_figures_and_flags():
    """An operator reads what to change from the message."""
    gate = admission(sequences=1)
    gate.admit(1, 1, now=0)
    with pytest.raises(Overloaded, match=r"1 of 1 sequences.*--max-queued-requests"):
        gate.admit(1, 1, now=0)


@pytest.mark.parametrize("rate", [0.5, 4, 100])
def test_the_drain_rate_is_right_from_the_start(rate):
    """No slow start: after one second it is as good as after a minute."""
    drain = DrainRate()
    drain.start(0)
    seconds = 4
    for event in range(1, int(rate * seconds) + 1):
        drain.add(1, event / rate)
    assert drain.per_second(seconds) == pytest.approx(rate, rel=0.2)


def shared(sequences=100, tokens=1000):
    """Where several tenants may call."""
    return Admission(max_sequences=sequences, max_waiting_tokens=tokens, shared=True)


def flood(gate, tenant, *, tokens=1, weight=1.0):
    """How many calls of a tenant enter before one is refused."""
    for count in range(10_000):
        try:
            gate.admit(1, tokens, now=0, tenant=tenant, weight=weight)
        except Overloaded:
            return count
    raise AssertionError("nothing bounds it")


def test_one_of_several_tenants_cannot_fill_the_queue():
    """It may hold four times what is free; whoever comes then finds room, and so does a third."""
    gate = shared()
    assert flood(gate, b"first") == 80
    assert flood(gate, b"second") == 16
    gate.admit(1, 1, now=0, tenant=b"third")


def test_prompts_that_wait_are_shared_as_well():
    """Long prompts are as good a flood as many calls."""
    gate = shared(sequences=1000)
    assert flood(gate, b"first", tokens=10) == 80
    gate.admit(1, 100, now=0, tenant=b"second")


def test_the_share_goes_by_weight():
    """Half the weight, half of what is free."""
    gate = shared(tokens=10_000)
    assert flood(gate, b"light", weight=0.5) == 67


def test_a_tenant_that_has_nothing_in_flight_needs_only_room():
    """Also for a call that is larger than its share."""
    gate = shared()
    flood(gate, b"first")
    gate.admit(20, 200, now=0, tenant=b"second")
    with pytest.raises(Overloaded):
        gate.admit(1, 1, now=0, tenant=b"third")


def test_a_single_tenant_may_have_all():
    """There is nobody to keep room for."""
    assert flood(admission(sequences=100, tokens=1000), b"only") == 100


def test_what_a_tenant_holds_is_forgotten_when_it_ends():
    """Counts per tenant come back to nothing, in whatever order its calls end."""
    gate = shared()
    tickets = [gate.admit(2, 10, now=0, tenant=b"a") for _ in range(3)]
    gate.computed(tickets[1], 10)
    for ticket in (tickets[1], tickets[0], tickets[0], tickets[2]):
        gate.release(ticket, now=1)
    assert (gate.sequences, gate.waiting_tokens, gate._held) == (0, 0, {})


def test_workers_that_come_and_go_change_the_room():
    """Who is in stays, also where it is more than there is room for now."""
    made = admission(sequences=2)
    tickets = [made.admit(1, 1, 0.0) for _ in range(2)]
    made.resize(3)
    tickets.append(made.admit(1, 1, 0.0))
    made.resize(1)
    with pytest.raises(Overloaded, match="3 of 1 sequences"):
        made.check(0.0)
    for ticket in tickets:
        made.release(ticket, 1.0)
    made.admit(1, 1, 1.0)
