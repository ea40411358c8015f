"""When nobody waits for a service any more that says nothing, whatever it said before."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.redis.silence import Bounds, Silence

BOUNDS = Bounds()
TIMES = st.floats(0, 2, allow_nan=False)


class SilenceMachine(RuleBasedStateMachine):
    """Commands go out, and are answered or given up; somebody looks now and then."""

    def __init__(self):
        super().__init__()
        self.silence = Silence()
        self.under_way = 0
        self.looks = 0  # since something was heard, or first asked

    @rule()
    def one_asks(self):
        self.looks = self.looks if self.under_way else 0
        self.under_way += 1
        self.silence.asked()

    @precondition(lambda self: self.under_way)
    @rule(took_s=TIMES)
    def one_is_answered(self, took_s):
        self.under_way -= 1
        self.looks = 0
        self.silence.answered(took_s)
        assert not self.silence.lasts

    @precondition(lambda self: self.under_way)
    @rule()
    def one_is_given_up(self):
        lasted = self.silence.lasts
        self.under_way -= 1
        self.silence.given_up()
        assert self.silence.lasts is (lasted and self.under_way > 0)

    @rule(times=st.integers(1, 9))
    def somebody_looks(self, times):
        for _ in range(times):
            due = self.silence.look_s
            assert (due is None) is (not self.under_way or self.silence.lasts)
            before = self.silence.times
            self.looks += due is not None
            now = self.silence.look()
            assert now is (due is not None and self.looks >= 8)
            assert self.silence.times == before + now

    @invariant()
    def patience_has_bounds(self):
        assert BOUNDS.least_s <= self.silence.patience_s <= BOUNDS.most_s


TestSilence = SilenceMachine.TestCase


def after(*answers):
    """A service whose answers took so long."""
    silence = Silence()
    for took_s in answers:
        silence.asked()
        silence.answered(took_s)
    return silence


@given(st.floats(0.0001, 0.05), st.integers(70, 100))
def test_patience_comes_near_to_what_answers_take(took_s, answers):
    """However long the first one took; within bounds."""
    assert after().patience_s == BOUNDS.most_s
    patience_s = after(0.2, *[took_s] * answers).patience_s
    assert patience_s < max(BOUNDS.least_s, 1.5 * took_s) + 0.001


def test_answers_that_vary_are_waited_for_longer():
    """A server far away, or a busy machine: its usual answers make no silence."""
    assert 0.08 < after(*[0.02, 0.08] * 50).patience_s <= BOUNDS.most_s


def test_looks_that_come_late_count_as_little():
    """Eight of them make a silence, together as long as patience lasts, or longer."""
    silence = after(*[0.001] * 100)
    silence.asked()
    assert 8 * silence.look_s == silence.patience_s == BOUNDS.least_s
