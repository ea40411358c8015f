"""The block pool by value: order of eviction, sharing, names and events."""

import numpy as np
import pytest

from kvcache.events import BlockRemoved, BlockStored
from kvcache.naming import chain, root_name
from kvcache.pool import BlockPool, OutOfBlocks


def tokens(*ids: int) -> np.ndarray:
    return np.array(ids, np.int32)


def filled(pool: BlockPool, ids: list[int], namespace: bytes = b"") -> list[int]:
    """A held, sealed table for the full blocks of `ids`."""
    size = pool.block_size
    table = pool.take(len(ids) // size)
    for index in range(len(table)):
        parent = table[index - 1] if index else namespace
        data = tokens(*ids[index * size : (index + 1) * size]).tobytes()
        table[index] = pool.seal(table[index], parent, data)
    return table


def test_taking_more_than_is_free_takes_nothing():
    """The error says both figures, and the pool is as before."""
    pool = BlockPool(3, 4)
    pool.take(2)
    with pytest.raises(OutOfBlocks, match="2 blocks wanted, 1 free"):
        pool.take(2)
    assert pool.free == 1


def test_a_released_prefix_is_found_until_its_block_is_needed():
    """Content survives release; taking every block evicts it."""
    pool = BlockPool(3, 2)
    table = filled(pool, [1, 2, 3, 4])
    pool.release(table)
    assert pool.match(b"", tokens(1, 2, 3, 4, 5)) == table
    pool.take(3)
    assert pool.match(b"", tokens(1, 2, 3, 4, 5)) == []


def test_the_leaf_is_evicted_before_its_parent():
    """A shorter prefix outlives a longer one, so what remains is always reachable."""
    pool = BlockPool(2, 2)
    parent, child = filled(pool, [1, 2, 3, 4])
    pool.release([parent, child])
    assert pool.take(1) == [child]
    assert pool.match(b"", tokens(1, 2, 3, 4)) == [parent]


def test_empty_blocks_are_taken_before_cached_ones():
    """Evicting useful content while an empty block lies idle would waste it."""
    pool = BlockPool(3, 2)
    cached = filled(pool, [1, 2])
    empty = pool.take(1)
    pool.release(cached)
    pool.release(empty)
    taken = pool.take(2)
    assert cached[0] not in taken


def test_namespaces_do_not_see_each_other():
    """The same tokens under another salt are no hit."""
    pool = BlockPool(4, 2)
    filled(pool, [1, 2], b"tenant a")
    assert pool.match(b"tenant b", tokens(1, 2)) == []


def test_a_duplicate_moves_its_hold_to_the_first_copy():
    """Two tables of one content end up holding one block; the other is free again."""
    pool = BlockPool(4, 2)
    first = filled(pool, [1, 2])
    second = filled(pool, [1, 2])
    assert first == second
    assert pool.refs(first[0]) == 2
    assert pool.free == 3


def test_a_late_listener_hears_of_everything_first():
    """Subscribing tells all sealed blocks, parents first, then each change."""
    pool = BlockPool(2, 2)
    pool.release(filled(pool, [1, 2, 3, 4], b"ns"))
    heard = []
    pool.subscribe(heard.append)
    root = root_name(b"ns")
    one = chain(root, tokens(1, 2).tobytes())
    two = chain(one, tokens(3, 4).tobytes())
    assert heard == [
        BlockStored(one, root, tokens(1, 2).tobytes()),
        BlockStored(two, one, tokens(3, 4).tobytes()),
    ]
    pool.take(1)
    assert heard[2:] == [BlockRemoved(two, 1)]


def test_names_differ_by_history_and_namespace():
    """Equal tokens after different histories, or in different namespaces, have different names."""
    data = tokens(1, 2).tobytes()
    names = {chain(root_name(b"a"), data), chain(root_name(b"b"), data)}
    names.add(chain(chain(root_name(b"a"), data), data))
    assert len(names) == 3
    assert all(len(name) == 16 for name in names)
