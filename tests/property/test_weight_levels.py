"""Quantised weights are as near to what they were as their bits allow, whatever they were."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engines.openvino.levels import GROUP, by_group, by_row, packed

SLACK = 1e-4  # of a level: what float32 itself rounds


@st.composite
def matrices(draw):
    """Of any scale, with groups of very different numbers; none too small for float32 to halve."""
    numbers = st.floats(-1, 1, width=32).filter(lambda x: x == 0 or abs(x) > 1e-20)
    shape = draw(st.integers(1, 4)), GROUP * draw(st.integers(1, 3))
    scale = draw(st.sampled_from([1e-3, 1.0, 1e3]))
    return draw(arrays(np.float32, shape, elements=numbers)) * np.float32(scale)


@given(matrices())
def test_int8_errs_by_half_a_level_at_most(weight):
    """Of a row's largest number, 1/254."""
    found = by_row(weight)
    level = np.abs(weight).max(axis=1, keepdims=True) / 127
    assert (np.abs(found.numbers - weight) <= level * (0.5 + SLACK)).all()


@given(matrices())
def test_int4_errs_by_half_a_level_and_at_the_far_end_by_one(weight):
    """A level is an eighth of the group's farthest number; the end is beyond 7.5 of them."""
    found = by_group(weight)
    errors = np.abs(found.numbers - weight).reshape(found.levels.shape)
    groups = np.abs(weight).reshape(found.levels.shape)
    level = groups.max(axis=2, keepdims=True) / 8
    most = np.where(groups > 7.5 * level, 1 + SLACK, 0.5 + SLACK)
    assert (errors <= most * level).all()


@given(matrices())
def test_levels_are_within_their_bits_and_come_out_of_their_bytes(weight):
    """Unpacked as two's complements, lower half first."""
    levels = by_group(weight).levels
    assert levels.min() >= -8
    assert levels.max() <= 7
    halves = np.stack([packed(levels) & 15, packed(levels) >> 4], axis=1).astype(np.int8)
    assert np.array_equal(np.where(halves > 7, halves - 16, halves), levels.reshape(-1, 2))


@given(matrices())
def test_levels_stand_for_what_is_quantised_to_the_same_again(weight):
    """What has been rounded once is not rounded further."""
    once = by_group(weight).numbers
    again = by_group(once).numbers
    assert np.abs(again - once).max() <= SLACK * max(np.abs(once).max(), 1e-30)
