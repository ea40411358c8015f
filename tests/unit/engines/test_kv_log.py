"""The log of KV changes: dense, bounded, and readers who believe only what follows."""

import pytest

from engines.kv_changes import Gathering, KvChange, KvSource
from engines.kv_log import Batch, KvLog, KvReader, Tail, Untrue
from tests.support.engines import limits_for, stepped
from tests.support.fake_engine import FakeEngine

EPOCH = 7


def name(number):
    return number.to_bytes(16)


def names(*numbers):
    return tuple(map(name, numbers))


def stored(*numbers):
    return KvChange(stored=names(*numbers))


def removed(*numbers):
    return KvChange(removed=names(*numbers))


def read(reader):
    """All that it is told now."""
    batches = []
    while (batch := reader.next()) is not None:
        batches.append(batch)
    return batches


def test_only_the_net_effect_is_told():
    """What came and went, or went and came, before anybody looked has not happened."""
    gathering = Gathering()
    gathering.store(name(1))
    gathering.store(name(2))
    gathering.remove(name(1))
    gathering.remove(name(3))
    gathering.remove(name(4))
    gathering.store(name(3))
    assert gathering.take() == KvChange(names(4), names(2))
    assert gathering.take() is None


def test_a_new_reader_gets_a_snapshot_and_then_each_change():
    """The snapshot stands for all before it; sequences go on from it."""
    log = KvLog(EPOCH)
    log.tell(stored(1, 2))
    reader = KvReader(log, 0, 0)
    assert read(reader) == [Batch(EPOCH, 1, (stored(1, 2),), snapshot=True)]
    log.tell(stored(3))
    log.tell(removed(1))
    assert read(reader) == [Batch(EPOCH, 2, (KvChange(names(1), names(3)),))]
    assert read(reader) == []


def test_an_empty_cache_has_a_snapshot_too():
    """A reader knows then that it has everything."""
    assert read(KvReader(KvLog(EPOCH), 0, 0)) == [Batch(EPOCH, 0, (KvChange(),), snapshot=True)]


def test_a_reader_goes_on_where_it_was():
    """By epoch and sequence, as long as that is among the last batches."""
    log = KvLog(EPOCH, batches=3)
    first = KvReader(log, 0, 0)
    for number in range(1, 6):
        log.tell(stored(number))
        read(first)
    assert [batch.sequence for batch in read(KvReader(log, EPOCH, 2))] == [3, 4, 5]
    assert read(KvReader(log, EPOCH, 5)) == []
    for epoch, after in ((EPOCH, 1), (EPOCH, 6), (EPOCH, 0), (8, 4)):
        (snapshot,) = read(KvReader(log, epoch, after))
        assert (snapshot.snapshot, snapshot.sequence) == (True, 5)


def test_what_nobody_reads_takes_no_more_room_than_the_cache():
    """A million blocks that come and go are no batches."""
    log = KvLog(EPOCH, batches=4, names=100, part=10)
    for number in range(1000):
        log.tell(stored(number))
        log.tell(removed(number))
    assert (log.sequence, log._held) == (0, 0)
    for number in range(1000):
        log.tell(stored(number))
        log.tell(removed(number - 20) if number >= 20 else KvChange())
    assert log._held <= 100
    assert len(log._last) <= 4
    assert sum(map(len, log._open.values())) < 10


def test_a_slow_reader_gets_a_snapshot_and_holds_nobody_up():
    """While another reads all batches one by one."""
    log = KvLog(EPOCH, batches=2)
    fast, slow = KvReader(log, 0, 0), KvReader(log, 0, 0)
    read(fast)
    read(slow)
    told = []
    for number in range(1, 6):
        log.tell(stored(number))
        told += read(fast)
    assert [batch.sequence for batch in told] == [1, 2, 3, 4, 5]
    assert read(slow) == [Batch(EPOCH, 5, (stored(1, 2, 3, 4, 5),), snapshot=True)]


def test_a_snapshot_comes_in_parts_and_what_changes_meanwhile_follows_it():
    """Parts share a sequence; the last has no more behind it."""
    log = KvLog(EPOCH, part=2)
    log.tell(stored(1, 2, 3))
    reader = KvReader(log, 0, 0)
    parts = [reader.next()]
    log.tell(KvChange(names(1), names(4)))
    parts += [reader.next(), reader.next()]
    assert [(b.sequence, b.snapshot, b.more) for b in parts] == [
        (2, True, True), (2, True, False), (3, False, False),
    ]  # fmt: skip
    assert [b.changes for b in parts] == [
        (stored(1, 2),), (stored(3),), (KvChange(names(1), names(4)),),
    ]  # fmt: skip


def test_a_cleared_cache_is_a_snapshot_for_everybody():
    """There is no telling what was removed; nobody goes on from before."""
    log = KvLog(EPOCH)
    log.tell(stored(1))
    reader = KvReader(log, 0, 0)
    read(reader)
    log.tell(KvChange(cleared=True, stored=names(2)))
    (batch,) = read(reader)
    assert (batch.snapshot, batch.sequence, batch.changes) == (True, 3, (stored(2),))


def test_what_is_told_twice_is_taken_once():
    """Nor is removed what was never there."""
    log = KvLog(EPOCH)
    log.tell(stored(1))
    reader = KvReader(log, 0, 0)
    read(reader)
    log.tell(KvChange(names(9), names(1)))
    assert read(reader) == []


def test_a_tail_goes_on_from_what_follows():
    """A snapshot clears first, once; `after` is what to ask for the rest with."""
    tail = Tail(EPOCH)
    assert tail.after == 0
    assert tail.take(Batch(EPOCH, 4, (stored(1),), snapshot=True, more=True)) == [
        KvChange(cleared=True), stored(1),
    ]  # fmt: skip
    assert tail.after == 0, "half a snapshot is none"
    assert tail.take(Batch(EPOCH, 4, (stored(2),), snapshot=True)) == [stored(2)]
    assert tail.after == 4
    assert tail.take(Batch(EPOCH, 5, (removed(1),))) == [removed(1)]
    assert tail.after == 5


def test_an_empty_snapshot_may_come_again():
    """Nothing was ever stored: its sequence is 0, with which nobody can go on."""
    tail = Tail(EPOCH)
    for _ in range(2):
        assert tail.take(Batch(EPOCH, 0, (KvChange(),), snapshot=True))[0].cleared
        assert tail.after == 0
        tail.restart()


def test_half_a_snapshot_is_begun_anew():
    """The call broke: another snapshot may have another sequence."""
    tail = Tail(EPOCH)
    tail.take(Batch(EPOCH, 4, (stored(1),), snapshot=True, more=True))
    tail.restart()
    assert tail.take(Batch(EPOCH, 6, (stored(3),), snapshot=True))[0].cleared
    assert tail.after == 6


@pytest.mark.parametrize(
    "batch",
    [
        Batch(EPOCH, 7, (stored(2),)),
        Batch(EPOCH, 5, (stored(2),)),
        Batch(EPOCH, 6, (stored(2),), more=True),
        Batch(EPOCH + 1, 6, (stored(2),)),
        Batch(EPOCH + 1, 6, (stored(2),), snapshot=True),
        Batch(EPOCH, 5, (stored(1),), snapshot=True),
        Batch(EPOCH, 6, (removed(1),), snapshot=True),
        Batch(EPOCH, 6, (removed(1, 2),)),
        Batch(EPOCH, 6, (stored(*range(2, 12)),)),
    ],
    ids=[
        "gap",
        "again",
        "no-end",
        "epoch",
        "epoch-snapshot",
        "part-again",
        "takes-away",
        "below-0",
        "too-much",
    ],
)
def test_what_does_not_follow_is_not_believed(batch):
    """The reader asks for a snapshot then, and takes nothing but one."""
    tail = Tail(EPOCH, most=10)
    tail.take(Batch(EPOCH, 5, (stored(1),), snapshot=True))
    with pytest.raises(Untrue):
        tail.take(batch)
    assert tail.after == 0
    with pytest.raises(Untrue):
        tail.take(Batch(EPOCH, 6, (stored(2),)))
    assert tail.take(Batch(EPOCH, 9, (), snapshot=True)) == [KvChange(cleared=True)]


@pytest.mark.parametrize(
    "batch",
    [Batch(EPOCH, 5, (), snapshot=True), Batch(EPOCH, 5, ()), Batch(EPOCH, 4, ())],
    ids=["of-another", "no-part", "no-part-of-it"],
)
def test_parts_belong_together(batch):
    """Nothing comes between the parts of a snapshot."""
    tail = Tail(EPOCH)
    tail.take(Batch(EPOCH, 4, (stored(1),), snapshot=True, more=True))
    with pytest.raises(Untrue):
        tail.take(batch)


def test_engines_that_tell_are_told_apart_from_those_that_do_not():
    """By the protocol: no engine has a method that does nothing."""
    assert isinstance(stepped(limits_for()), KvSource)
    assert not isinstance(FakeEngine(), KvSource)
