"""What attention gathers at once is bounded, whatever the scheduler sends."""

import numpy as np

from engines.torch.batch import GATHERED_KEYS, Tile, batched


def test_tiles_are_gathered_in_bounded_parts():
    """Nine hundred replayed rows over long tables become parts, in order, none too large."""
    tiles = [Tile(np.array([i]), np.array([i]), np.zeros(128, np.int64)) for i in range(900)]
    parts = list(batched(tiles, 128 * 32))
    assert [tile for part in parts for tile in part] == tiles
    assert max(len(part) for part in parts) * 128 * 32 <= GATHERED_KEYS


def test_one_tile_larger_than_the_bound_still_goes():
    """A context longer than the bound is gathered alone."""
    tiles = [Tile(np.array([0]), np.array([0]), np.zeros(4096, np.int64))] * 2
    assert [len(part) for part in batched(tiles, 4096 * 32)] == [1, 1]
