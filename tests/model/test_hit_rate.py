"""A prefix that was computed and not evicted is never computed again."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hit_rate import Whose, observed_hits, owed_hits, second_turn_hits
from tests.support.machine import prompts

whose = st.builds(Whose, st.sampled_from([b"", b"a", b"b"]), st.integers(0, 12))


@given(st.lists(st.tuples(prompts, whose), min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_every_full_block_of_a_seen_prefix_is_a_hit(asked):
    """The hit-rate floor and its ceiling: exactly what a naive set of computed prefixes says.

    Within a salt, and among all salts what they share of it: never more, and never less.
    """
    texts = [prompt for prompt, _ in asked]
    owners = [replace(one, shared=min(one.shared, len(prompt))) for prompt, one in asked]
    hits, answers = observed_hits(texts, owners)
    assert hits == owed_hits(texts, answers, owners)


def test_a_conversation_reuses_its_own_answer():
    """The next turn hits the blocks that the last answer filled while it was generated."""
    assert second_turn_hits() == [0, 6]
