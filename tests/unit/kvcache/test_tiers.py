"""The books of slower tiers, by example; `tests/model/test_tiers_machine.py` tries the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvcache.manifest import manifest_bytes, read_manifest, write_manifest
from kvcache.tiers import DISK, HOST, Remove, SecondChance, Tiers, Write

A, B, C, D = (bytes([number]) * 16 for number in range(4))
PRINT = b"f" * 16


def test_what_is_used_is_spared_once():
    """The first to come goes first, but for one that was used since: it goes after the others."""
    names = SecondChance(2)
    assert names.add(A) == names.add(B) == []
    names.use(A)
    assert names.add(C) == [B]
    assert names.add(D) == [A]
    assert list(names) == [C, D]


def test_no_room_keeps_nothing():
    """With no room at all a name goes at once."""
    assert SecondChance(0).add(A) == [A]


def test_a_block_goes_down_and_comes_back():
    """From the device to memory, to the disk, and up again; what was moved once is not twice."""
    tiers = Tiers(1, 2)
    tiers.keep(A, "a")
    tiers.keep(B, "b")
    assert tiers.disk.take_tasks() == [Write(A, "a")]
    assert tiers.match([A, B]) == ["a", "b"], "what is being written is still in memory"
    tiers.disk.written(A)
    assert tiers.match([A, B]) == []
    assert tiers.beyond([A, B]) == [A]
    tiers.fetched(A, "a")
    assert tiers.match([A]) == ["a"]
    assert tiers.disk.take_tasks() == [Write(B, "b")]
    tiers.disk.written(B)
    tiers.keep(C, "c")
    assert tiers.disk.take_tasks() == [], "A is on the disk already"
    assert (tiers.names(HOST), tiers.names(DISK)) == ((C,), (A, B))


def test_a_disk_that_is_full_makes_room():
    """What goes from the disk is removed there, and a write that failed leaves nothing behind."""
    tiers = Tiers(1, 1)
    for name in (A, B, C):
        tiers.keep(name, name)
    assert tiers.disk.take_tasks() == [Write(A, A), Write(B, B), Remove(A)]
    tiers.disk.written(A)
    tiers.disk.unwritten(B)
    assert tiers.disk.take_tasks() == [Remove(B)]
    assert (len(tiers.disk), tiers.counters.lost) == (0, 1)


def test_a_slow_disk_costs_no_memory():
    """Beyond so many unanswered writes, blocks are dropped and counted."""
    tiers = Tiers(1, 10, most_writing=2)
    for number in range(6):
        tiers.keep(bytes([number]) * 16, number)
    assert len(tiers.disk.take_tasks()) == 2
    assert tiers.counters.dropped == 3


def test_what_is_corrupt_is_gone():
    """It is counted, removed and never asked for again."""
    tiers = Tiers(2, 2)
    tiers.disk.found([A, B])
    tiers.disk.lost(A, corrupt=True)
    assert tiers.disk.take_tasks() == [Remove(A)]
    assert tiers.beyond([A]) == []
    assert (tiers.counters.corrupt, tiers.counters.lost) == (1, 1)


def test_the_end_writes_what_memory_alone_has():
    """As much as the disk has room for, and the last used of it: the device's before the host's."""
    tiers = Tiers(3, 2)
    for name in (A, B, C):
        tiers.keep(name, name)
    tiers.flush({D: D})
    assert tiers.disk.take_tasks() == [Write(D, D), Write(C, C)]


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20))
def test_a_manifest_reads_back(names):
    """Names and their order survive, in as many bytes as is said."""
    data = write_manifest(PRINT, names)
    assert read_manifest(data, PRINT) == names
    assert len(data) == manifest_bytes(len(names))


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=5), st.data())
def test_a_manifest_that_is_not_whole_is_refused(names, data):
    """Cut anywhere, with any byte changed, or of another model: never half believed."""
    good = write_manifest(PRINT, names)
    cut = good[: data.draw(st.integers(0, len(good) - 1))]
    place = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[place] ^= data.draw(st.integers(1, 255))
    for bad in (cut, bytes(changed), good + b"\0", b""):
        with pytest.raises(ValueError, match=r"torn|version|number"):
            read_manifest(bad, PRINT)
    with pytest.raises(ValueError, match="another model"):
        read_manifest(good, b"g" * 16)
