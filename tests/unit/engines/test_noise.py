"""Noise is the published Philox4x32-10, addressed by seed, choice and position."""

import numpy as np
import pytest

from engines.noise import philox4x32, uniform


def words(*values):
    return tuple(np.array([value], np.uint64) for value in values)


# Random123 1.14, tests/kat_vectors: philox4x32 10.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_matches_the_published_vectors(counter, key, expected):
    """The known answers of the Random123 distribution."""
    found = philox4x32(words(*counter), words(*key))
    assert tuple(int(word[0]) for word in found) == expected


def test_uniform_takes_its_bits_from_the_first_two_words():
    """52 bits, high words first, over 2**52."""
    expected = ((0x6627E8D5 >> 6) << 26 | (0xE169C58D >> 6)) / 2**52
    assert at(seed=0, choice=0, position=0) == expected


def at(*, seed, choice, position):
    drawn = uniform(np.array([seed], np.uint64), np.array([choice]), np.array([position]))
    return float(drawn[0])


def test_every_part_of_the_address_matters():
    """Seed (both halves), choice and position (both halves) give different numbers."""
    base = {"seed": 7, "choice": 1, "position": 5}
    changes = [{}, {"seed": 8}, {"seed": 7 + 2**32}, {"choice": 2}, {"position": 6}]
    changes.append({"position": 5 + 2**32})
    assert len({at(**base | change) for change in changes}) == len(changes)


def test_a_draw_does_not_depend_on_its_neighbours():
    """Vectorised or alone: the same numbers."""
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, 2**64, 50, np.uint64)
    choices, positions = rng.integers(0, 8, 50), rng.integers(0, 1000, 50)
    together = uniform(seeds, choices, positions)
    for i in range(50):
        assert together[i] == at(seed=seeds[i], choice=choices[i], position=positions[i])


def test_numbers_are_uniform():
    """Mean, variance and a histogram of 200,000 draws, over positions and over seeds."""
    count = np.arange(100_000)
    zero = np.zeros_like(count)
    drawn = np.concatenate(
        [uniform(zero.astype(np.uint64), zero, count), uniform(count.astype(np.uint64), zero, zero)]
    )
    assert 0 <= drawn.min() < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.003
    assert abs(drawn.var() - 1 / 12) < 0.001
    bins = np.histogram(drawn, 64, (0, 1))[0]
    assert ((bins - 3125) ** 2 / 3125).sum() < 120  # chi-square, 63 degrees: p = 2e-5
