"""A prefix that was computed and not evicted is never computed again."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hit_rate import observed_hits, owed_hits
from tests.support.machine import prompts


@given(st.lists(prompts, min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_every_full_block_of_a_seen_prefix_is_a_hit(asked):
    """The hit-rate floor: exactly what a naive set of all computed prefixes says is owed."""
    hits, answers = observed_hits(asked)
    assert hits == owed_hits(asked, answers)


def test_a_conversation_reuses_its_own_answer():
    """The next turn hits the blocks that the last answer filled while it was generated."""
    first = [0, 1, 2, 0, 1]
    _, (answer,) = observed_hits([first])
    second = [*first, *answer, 2, 2]
    hits, _ = observed_hits([first, second])
    assert hits == [0, 6]
