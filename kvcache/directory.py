"""Who holds which blocks, by name, over many caches: what a router asks. Pure.

    name -> one bit for each worker that holds it, in one table for each tier

A chain of names is looked up block by block; the bits that are left after each are the workers that
still match, so that 64 of them cost what one does. A worker that is gone loses its bit at once; its
names are swept out a few at a time with each `fold`, since a table of a million cannot be gone
through while requests wait. Until that is done its bit is given to nobody else.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

WORTH: Mapping[int, float] = MappingProxyType({0: 1.0, 1: 0.5, 2: 0.25})  # of a block, by its tier
_SWEPT = 512  # names with each fold, and two for each that it folds


class PrefixDirectory:
    """Blocks of workers by tier; `worth` says what a block of each is worth, others are ignored."""

    def __init__(self, worth: Mapping[int, float] = WORTH) -> None:
        best_first = sorted(worth, key=lambda tier: -worth[tier])
        self._held: dict[int, dict[bytes, int]] = {tier: {} for tier in best_first}
        self._tables = [(self._held[tier], 1.0 - worth[tier]) for tier in best_first]
        self._bits: dict[str, int] = {}
        self._workers: dict[int, str] = {}  # by the index of their bit
        self._live = 0  # the bits of workers that are there
        self._dead = 0  # those of workers that are gone, and that may still be in a table
        self._sweep: Iterator[None] = iter(())

    def __len__(self) -> int:
        """Names in all tables: one that several workers hold counts once."""
        return sum(map(len, self._held.values()))

    def fold(
        self,
        worker: str,
        *,
        removed: Collection[bytes] = (),
        stored: Collection[bytes] = (),
        tier: int = 0,
    ) -> None:
        """Take in that blocks of a worker are gone, and that others are there."""
        held = self._held.get(tier)
        if held is None:
            return
        bit = self._bits.get(worker) or self._enter(worker)
        for name in removed:
            others = held.get(name, 0) & ~bit
            if others:
                held[name] = others
            else:
                held.pop(name, None)
        for name in stored:
            held[name] = held.get(name, 0) | bit
        for _ in islice(self._sweep, _SWEPT + 2 * (len(removed) + len(stored))):
            pass

    def clear(self, worker: str) -> None:
        """Forget a worker, or what it holds, in no time."""
        bit = self._bits.pop(worker, 0)
        if bit:
            del self._workers[bit.bit_length() - 1]
            self._live &= ~bit
            if not self._dead:
                self._sweep = self._swept()
            self._dead |= bit

    def matches(self, names: Sequence[bytes]) -> dict[str, float]:
        """What the longest run of each worker is worth, in blocks, from the first of `names` on.

        Workers that do not hold the first are left out. The names are those of one prompt.
        """
        left, depth = self._live, 0
        found: dict[int, int] = {}
        less: dict[int, float] = {}
        for name in names:
            holders = 0
            for held, loss in self._tables:
                here = held.get(name, 0) & left & ~holders
                if here and loss:
                    for index in _indices(here):
                        less[index] = less.get(index, 0.0) + loss
                holders |= here
            if depth:
                found |= dict.fromkeys(_indices(left & ~holders), depth)
            left = holders
            if not left:
                break
            depth += 1
        if depth:
            found |= dict.fromkeys(_indices(left), depth)
        return {
            self._workers[index]: blocks - less.get(index, 0.0) for index, blocks in found.items()
        }

    def _enter(self, worker: str) -> int:
        taken = self._live | self._dead
        bit = ~taken & (taken + 1)  # the lowest that is free
        self._bits[worker] = bit
        self._workers[bit.bit_length() - 1] = worker
        self._live |= bit
        return bit

    def _swept(self) -> Iterator[None]:
        """Take dead bits out of the tables, one name at each step, until there are none."""
        while self._dead:
            dead = self._dead  # one that dies meanwhile is for the next round
            for held in self._held.values():
                for name in list(held):
                    bits = held.get(name, 0)
                    if bits & dead:
                        if bits & ~dead:
                            held[name] = bits & ~dead
                        else:
                            del held[name]
                    yield
            self._dead &= ~dead


def _indices(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low
