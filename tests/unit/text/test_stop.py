"""Stop strings by example; the property test holds the rest."""

import pytest

from engines.text.stop import StopMatcher


def run(stops, *pieces):
    matcher = StopMatcher(stops)
    return [matcher.feed(piece) for piece in pieces], matcher.flush(), matcher.matched


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "rest", "matched"),
    [
        (["END"], ["a", "E", "N", "D", "b"], ["a", "", "", "", ""], "", "END"),
        (["END"], ["aE", "Nx"], ["a", "ENx"], "", None),
        (["END"], ["aEN"], ["a"], "EN", None),
        (["END"], ["xENEND"], ["xEN"], "", "END"),
        (["abcd", "bc"], ["abcd"], ["a"], "", "bc"),
        (["c", "bc"], ["abc"], ["a"], "", "bc"),
        (["\n\n"], ["one\n", "two\n", "\nthree"], ["one", "\ntwo", ""], "", "\n\n"),
        (["🙂"], ["a🙂b"], ["a"], "", "🙂"),
        ([], ["abc"], ["abc"], "", None),
    ],
)
def test_stop_strings_end_the_text(stops, pieces, shown, rest, matched):
    """What is shown with each piece, what the end gives back, and what matched."""
    assert run(stops, *pieces) == (shown, rest, matched)


def test_nothing_comes_back_after_a_match():
    """Held-back text of a match is never shown, not even by flush."""
    matcher = StopMatcher(["ab"])
    assert [matcher.feed("xab"), matcher.feed("more"), matcher.flush()] == ["x", "", ""]


def test_a_kept_stop_string_is_the_end_of_the_text():
    """Shown once it is complete, and nothing after it."""
    matcher = StopMatcher(["END", "D of"], keep=True)
    assert [matcher.feed(text) for text in ("the EN", "D of it", "more")] == ["the ", "END", ""]
    assert (matcher.matched, matcher.flush()) == ("END", "")
