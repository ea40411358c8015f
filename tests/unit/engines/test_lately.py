"""Sums that fade: read at any time, added to in any order of names, and after any pause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.replicas.lately import Lately

comings = st.lists(
    st.tuples(st.sampled_from("abc"), st.floats(0, 1e6), st.floats(0, 1e5)), max_size=20
)


@given(comings, st.floats(0, 1e5), st.floats(0, 1e7))
def test_each_amount_fades_by_itself(came, begun, rest):
    """What is left of all of them is the sum of what is left of each, whatever the pauses."""
    sums, now, owed = Lately(60.0), begun, []
    for name, amount, pause in came:
        now += pause
        sums.add(name, amount, now)
        owed.append((name, amount, now))
    now += rest
    left = sums.sums(now)
    for name in "abc":
        wanted = sum(amount * 2.0 ** -((now - at) / 60.0) for of, amount, at in owed if of == name)
        assert left.get(name, 0.0) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_a_place_that_is_gone_has_nothing():
    """Nor has what comes under its name."""
    sums = Lately(60.0)
    sums.add("a", 5.0, 0.0)
    sums.add("b", 4.0, 0.0)
    sums.forget("a")
    assert sums.sums(60.0) == {"b": 2.0}
