"""The prefix directory: who matches how far, what is forgotten, and that nothing is mixed up."""

import random

from hypothesis import given
from hypothesis import strategies as st

from kvcache.directory import PrefixDirectory

A, B, C, D = (bytes([letter]) * 16 for letter in b"ABCD")


def test_each_worker_matches_as_far_as_its_run_goes():
    """From the first name on, without a gap; who lacks the first is left out."""
    directory = PrefixDirectory()
    directory.fold("whole", stored=[A, B, C])
    directory.fold("half", stored=[A, C])
    directory.fold("none", stored=[B, C])
    assert directory.matches([A, B, C]) == {"whole": 3, "half": 1}
    assert directory.matches([A, B, C, D]) == {"whole": 3, "half": 1}
    assert directory.matches([D]) == {}
    assert directory.matches([]) == {}


def test_a_block_of_a_slower_tier_is_worth_less():
    """A run goes on over tiers; a block in two of them is worth the better one."""
    directory = PrefixDirectory({0: 1.0, 1: 0.5})
    directory.fold("a", stored=[A, C])
    directory.fold("a", stored=[B, C], tier=1)
    directory.fold("b", stored=[A, B], tier=1)
    assert directory.matches([A, B, C]) == {"a": 2.5, "b": 1.0}
    directory.fold("a", removed=[C])
    assert directory.matches([A, B, C]) == {"a": 2.0, "b": 1.0}
    directory.fold("a", stored=[D], tier=9)
    assert directory.matches([D]) == {}, "a tier that nobody has set a price on counts as nothing"


def test_what_is_removed_is_removed_for_one_worker():
    """Others keep theirs; what was never there may be removed."""
    directory = PrefixDirectory()
    directory.fold("a", stored=[A])
    directory.fold("b", stored=[A])
    directory.fold("a", removed=[A, B])
    assert directory.matches([A]) == {"b": 1}
    directory.fold("b", removed=[A])
    assert len(directory) == 0


def test_a_cleared_worker_is_gone_at_once_and_swept_out_later():
    """A worker that comes back under the name has nothing of its former life."""
    directory = PrefixDirectory()
    names = [number.to_bytes(16) for number in range(5000)]
    directory.fold("a", stored=names)
    directory.fold("b", stored=names[:10])
    directory.clear("a")
    assert directory.matches(names) == {"b": 10}
    directory.fold("a", stored=names[:3])
    assert directory.matches(names) == {"a": 3, "b": 10}
    assert len(directory) > 10, "sweeping takes its time"
    for _ in range(20):
        directory.fold("b")
    assert len(directory) == 10
    directory.clear("nobody")
    assert directory.matches(names) == {"a": 3, "b": 10}


def test_bits_of_the_gone_are_given_again():
    """However often workers come and go, the masks do not grow."""
    directory = PrefixDirectory()
    for life in range(500):
        directory.fold(f"w{life}", stored=[A, B])
        assert directory.matches([A, B]) == {f"w{life}": 2}
        directory.clear(f"w{life}")
    directory.fold("last", stored=[A])
    assert max(directory._bits.values()) <= 2
    assert directory.matches([A]) == {"last": 1}


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_directory_is_what_a_set_for_each_worker_would_be(seed, count):
    """Random folds, clears and questions against plain sets."""
    chance = random.Random(seed)
    directory, sets = PrefixDirectory({0: 1.0, 1: 0.5}), {}
    names = [bytes([number]) * 16 for number in range(12)]
    for _ in range(count):
        worker, tier = chance.choice("abcde"), chance.randrange(2)
        if chance.random() < 0.1:
            directory.clear(worker)
            sets.pop(worker, None)
            continue
        some, gone = chance.sample(names, 5), chance.sample(names, 2)
        directory.fold(worker, removed=gone, stored=some, tier=tier)
        held = sets.setdefault(worker, ({}, {}))[tier]
        for name in gone:
            held.pop(name, None)
        held |= dict.fromkeys(some)
    chain = chance.sample(names, 6)
    want = {}
    for worker, (fast, slow) in sets.items():
        worth = 0.0
        for name in chain:
            if name not in fast and name not in slow:
                break
            worth += 1.0 if name in fast else 0.5
        if worth:
            want[worker] = worth
    assert directory.matches(chain) == want
