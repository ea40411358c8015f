"""The statistics of benchmarks.isolation, by values that others have computed."""

import random

import pytest

from benchmarks.isolation import Prompts, kolmogorov, smallest_shift_seen, smirnov


@pytest.mark.parametrize(
    ("x", "likely"),
    [
        # Smirnov's table of 1948, as scipy.stats.kstwobign.sf gives it with more digits.
        (0.0, 1.0),
        (0.3, 0.9999906941986655),
        (0.5, 0.9639452436648751),
        (1.0, 0.26999967167735456),
        (1.3580986, 0.05),
        (1.6276236, 0.01),
        (2.0, 0.0006709252557796953),
        (5.0, 2 * 2.718281828459045**-50),
    ],
)
def test_kolmogorovs_distribution_is_as_tabled(x, likely):
    """From its middle to its tails."""
    assert kolmogorov(x) == pytest.approx(likely, rel=1e-6)


def test_the_distance_is_the_largest_of_the_steps():
    """Of samples of any sizes, with ties."""
    assert smirnov([1, 2, 3, 4], [1, 2, 3, 4]) == (0, 1)
    assert smirnov([1, 2], [3, 4, 5])[0] == 1
    assert smirnov([1, 1, 2, 5], [1, 3])[0] == pytest.approx(0.25)
    assert smirnov([4, 5, 6, 7], [1, 2, 5.5])[0] == pytest.approx(2 / 3)


def test_equal_distributions_are_told_apart_as_rarely_as_it_says():
    """One in a hundred at p < 0.01, and a shift of half a deviation nearly always."""
    rng = random.Random(3)

    def drawn(shift=0.0):
        return [rng.gauss(shift, 1) for _ in range(100)]

    alike = sum(smirnov(drawn(), drawn())[1] < 0.01 for _ in range(1000))
    assert 1 <= alike <= 20
    apart = sum(smirnov(drawn(), drawn(0.6))[1] < 0.01 for _ in range(100))
    assert apart > 80


def test_the_smallest_shift_is_one_that_the_test_sees():
    """And a little less is not."""
    rng = random.Random(5)
    one, other = ([rng.gauss(50, 1) for _ in range(300)] for _ in range(2))
    shift = smallest_shift_seen(one, other)
    assert 0.05 < shift < 0.5
    assert smirnov([x - shift for x in one], other)[1] <= 0.01
    assert smirnov([x - shift + 0.1 for x in one], other)[1] > 0.01


def test_prompts_are_as_long_as_they_are_wanted_and_drawn_by_their_seed():
    """No two of them alike."""
    prompts, again = Prompts(7), Prompts(7)
    texts = [prompts.draw() for _ in range(20)]
    assert {prompts._count(text.split()) for text in texts} == {200}
    assert texts == [again.draw() for _ in range(20)]
    assert len({text[:12] for text in texts}) == 20
