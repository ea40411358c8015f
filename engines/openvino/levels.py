"""Weights in few bits: whole levels, and the scales that make numbers of them again.

    int8    a row times one scale, so that its number farthest from 0 is 127 or -127
    int4    64 inputs of a row times a scale, so that their number farthest from 0 is -8

A scale of int4 has a sign, by which all of -8 to 7 is used. What lies at the other end may be out
of reach by up to one level; all else is off by half a level at most. Two levels of four bits share
a byte, the first of them in its lower half.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GROUP = 64  # inputs that share a scale of int4; 128 would save 6 % of the bytes
FEWEST = 256  # outputs of a matrix in int4: a router of experts has fewer, and too much hangs on it

Weight = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Levels:
    """A matrix: [outputs, inputs] by rows, [outputs, groups, inputs of one] by groups."""

    levels: npt.NDArray[np.int8]
    scales: Weight  # the same, but for a last dimension of one

    @property
    def numbers(self) -> Weight:
        """What they stand for, [outputs, inputs]."""
        return (self.levels * self.scales).reshape(len(self.levels), -1)


def by_row(weight: Weight) -> Levels:
    """Eight bits."""
    scales = np.abs(weight).max(axis=1, keepdims=True) / 127
    return _levels(weight, scales, -127, 127)


def takes_groups(outputs: int, inputs: int) -> bool:
    """Whether a matrix is kept in four bits, where those are asked for."""
    return outputs >= FEWEST and inputs % GROUP == 0


def by_group(weight: Weight) -> Levels:
    """Four bits; only what `takes_groups` has whole groups."""
    groups = weight.reshape(len(weight), -1, GROUP)
    low, high = groups.min(axis=2, keepdims=True), groups.max(axis=2, keepdims=True)
    return _levels(groups, np.where(-low > high, low, high) / -8, -8, 7)


def packed(levels: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Levels of four bits, an even number of them, two to a byte."""
    pairs = levels.reshape(-1, 2).view(np.uint8)
    low, high = pairs[:, 0] & np.uint8(15), pairs[:, 1] << np.uint8(4)
    return low | high


def _levels(weight: Weight, scales: Weight, least: int, most: int) -> Levels:
    scales[scales == 0] = 1
    levels = np.rint(weight / scales).clip(least, most)
    return Levels(levels.astype(np.int8), scales.astype(np.float32))
