"""The waits before what failed is tried again."""

from gateway.workers.backoff import BackOff


def test_waits_double_up_to_a_bound():
    """From half a second to half a minute."""
    backoff = BackOff(lambda: 0.0)
    assert [backoff.after(1) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_health_forgets_what_was():
    """A minute of it, and no less."""
    backoff = BackOff(lambda: 0.0)
    assert [backoff.after(healthy) for healthy in (0, 59, 60, 59)] == [0.5, 1, 0.5, 1]


def test_up_to_half_is_left_to_chance():
    """Never longer than the bound, never shorter than half."""
    chances = iter([0.0, 0.5, 0.999])
    backoff = BackOff(lambda: next(chances))
    assert [round(backoff.after(0), 3) for _ in range(3)] == [0.5, 0.75, 1.001]
