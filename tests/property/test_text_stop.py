"""Stop strings against a naive reading of the whole text."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from engines.text.stop import StopMatcher

# Few letters, so that prefixes overlap and almost-matches abound.
TEXT = st.text("abc", max_size=30)
STOPS = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4)


def first_complete(text, stops):
    """The text before the stop string that is complete first, the longest on a tie."""
    for end in range(len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            longest = max(ended, key=len)
            return text[: end - len(longest)], longest
    return text, None


def held_back(text, stops):
    """The longest ending of the text that may yet become a stop string."""
    for start in range(len(text) + 1):
        if any(stop.startswith(text[start:]) for stop in stops):
            return text[start:]
    return ""


def cut(text, cuts):
    edges = [0, *sorted(min(place, len(text)) for place in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=600, deadline=None)
@given(TEXT, STOPS, st.lists(st.integers(0, 30), max_size=10))
def test_any_cutting_shows_what_the_naive_reading_shows(text, stops, cuts):
    """The emitted text and the match are those of the whole text, whatever the pieces."""
    matcher = StopMatcher(stops)
    shown = "".join(matcher.feed(piece) for piece in cut(text, cuts)) + matcher.flush()
    assert (shown, matcher.matched) == first_complete(text, stops)


@settings(max_examples=300, deadline=None)
@given(TEXT, STOPS)
def test_only_what_may_begin_a_stop_string_is_held_back(text, stops):
    """Nothing is withheld longer than a possible match demands."""
    matcher = StopMatcher(stops)
    shown = "".join(matcher.feed(letter) for letter in text)
    if matcher.matched is None:
        assert shown + held_back(text, stops) == text
