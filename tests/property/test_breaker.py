"""The breaker, whatever calls and probes do, and whenever."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.redis.breaker import Breaker, Patience

PATIENCE = Patience()
GAPS = st.floats(0, 8, allow_nan=False)


class BreakerMachine(RuleBasedStateMachine):
    """Calls are tried while it is closed; probes where one is due."""

    def __init__(self):
        super().__init__()
        self.now = 100.0
        self.breaker = Breaker(now=self.now)
        self.in_a_row = 0
        self.failed_at = []  # since it was closed
        self.openings = 0

    @rule(gap=GAPS)
    def time_goes_by(self, gap):
        self.now += gap

    @precondition(lambda self: not self.breaker.open)
    @rule()
    def a_call_is_answered(self):
        self.breaker.succeed()
        self.in_a_row = 0

    @precondition(lambda self: not self.breaker.open)
    @rule()
    def a_call_fails(self):
        self.in_a_row += 1
        self.failed_at.append(self.now)
        lately = [at for at in self.failed_at if self.now - at <= PATIENCE.window_s]
        must = self.in_a_row >= PATIENCE.in_a_row or len(lately) >= PATIENCE.within_window
        assert self.breaker.fail(self.now) is must
        assert self.breaker.open is must
        self.openings += must

    @precondition(lambda self: self.breaker.open)
    @rule(answered=st.booleans())
    def a_late_call_ends(self, answered):
        before = self.breaker.probe_at
        if answered:
            self.breaker.succeed()
        else:
            assert self.breaker.fail(self.now) is False
        assert self.breaker.open
        assert self.breaker.probe_at == before

    @precondition(lambda self: self.breaker.open)
    @rule(answered=st.booleans())
    def the_probe_ends(self, answered):
        self.now = max(self.now, self.breaker.probe_at)
        self.breaker.probed(self.now, answered=answered)
        assert self.breaker.open is not answered
        if answered:
            self.in_a_row, self.failed_at = 0, []

    @invariant()
    def a_probe_is_never_far(self):
        if self.breaker.open:
            assert round(self.breaker.probe_at - self.now, 6) <= PATIENCE.longest_rest_s

    @invariant()
    def it_counts_how_often_it_went_down(self):
        assert self.breaker.openings == self.openings


TestBreaker = BreakerMachine.TestCase


@given(st.integers(1, 12))
def test_each_probe_that_fails_is_followed_by_a_longer_rest(probes):
    """Twice as long, up to the longest."""
    now, breaker = 0.0, Breaker()
    rests = []
    for _ in range(probes):
        now = breaker.probe_at
        breaker.probed(now, answered=False)
        rests.append(round(breaker.probe_at - now, 6))
    doubled = [min(0.1 * 2 ** (1 + n), PATIENCE.longest_rest_s) for n in range(probes)]
    assert all(abs(rest - want) < 1e-6 for rest, want in zip(rests, doubled, strict=True))


@given(st.floats(0, PATIENCE.steady_s - 0.001), st.integers(1, 6))
def test_who_falls_again_soon_rests_as_long_as_before(healthy_s, falls):
    """A server that comes and goes is not asked more often than one that is gone."""
    now, breaker, rests = 0.0, Breaker(), []
    for _ in range(falls):
        now = max(now, breaker.probe_at)
        breaker.probed(now, answered=True)
        now += healthy_s
        breaker.fail(now)
        breaker.fail(now)
        rests.append(round(breaker.probe_at - now, 6))
    assert rests == sorted(rests)
    now = breaker.probe_at
    breaker.probed(now, answered=True)
    now += PATIENCE.steady_s + 1
    breaker.fail(now)
    breaker.fail(now)
    assert abs(round(breaker.probe_at - now, 6) - PATIENCE.first_rest_s) < 1e-6


def test_it_begins_open_and_asks_at_once():
    """Nobody waits for a service that was never there, and one that is there is found."""
    breaker = Breaker(now=7.0)
    assert breaker.open
    assert breaker.probe_at == 7.0
    breaker.probed(7.0, answered=True)
    assert not breaker.open
    assert breaker.openings == 0
