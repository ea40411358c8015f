"""Weights in few bits, by value."""

import numpy as np
import pytest

from engines.openvino.levels import GROUP, by_group, by_row, packed, takes_groups


def row(*first, length=GROUP):
    """A row that begins with these numbers; the others are 0."""
    return np.array([*first, *[0] * (length - len(first))], np.float32)


def test_a_row_of_int8_spans_its_largest():
    """Of either sign; a row of zeros stays one."""
    found = by_row(np.stack([row(-254, 2, 3.1), row(127, -1.4), row()]))
    assert found.scales.ravel().tolist() == [2, 1, 1]
    assert found.levels[:, :3].tolist() == [[-127, 1, 2], [127, -1, 0], [0, 0, 0]]
    assert (found.levels.dtype, found.scales.dtype) == (np.int8, np.float32)


def test_a_group_of_int4_puts_its_farthest_number_at_minus_8():
    """So its scale is negative where that is above 0; what is opposite goes as far as 7."""
    weight = np.stack([row(-16, 14, 15.9, 3.1), row(8, -7, -8, 2.4)])
    found = by_group(weight)
    assert found.scales.ravel().tolist() == [2, -1]
    assert found.levels[:, 0, :4].tolist() == [[-8, 7, 7, 2], [-8, 7, 7, -2]]
    assert found.numbers[:, :4].tolist() == [[-16, 14, 14, 4], [8, -7, -7, 2]]


def test_groups_of_a_row_have_scales_of_their_own():
    """What is large in one does not make the next coarse."""
    weight = np.concatenate([row(-800, 100), row(0.5, -4), row()])[np.newaxis]
    found = by_group(weight)
    assert found.levels.shape == (1, 3, GROUP)
    assert found.scales.ravel().tolist() == [100, 0.5, 1]
    assert found.numbers[0, [0, 1, GROUP, GROUP + 1]].tolist() == [-800, 100, 0.5, -4]


def test_two_levels_share_a_byte_the_first_below():
    """As two's complements of four bits."""
    levels = np.array([[1, -2, 7, -8], [-1, 0, 0, -1]], np.int8)
    assert packed(levels).tolist() == [0xE1, 0x87, 0x0F, 0xF0]


@pytest.mark.parametrize(
    ("outputs", "inputs", "takes"),
    [(256, 64, True), (4096, 4096, True), (255, 4096, False), (4096, 4064, False)],
)
def test_routers_and_uneven_rows_take_no_groups(outputs, inputs, takes):
    """They are kept in eight bits."""
    assert takes_groups(outputs, inputs) == takes
