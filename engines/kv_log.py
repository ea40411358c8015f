"""Changes of a KV cache as a log that readers follow at their own pace, and both its ends. Pure.

    engine --tell--> KvLog --> KvReader.next -- wire --> Tail.take --> directory
                     names that are there now     one batch after another, or a snapshot
                     the last batches

Changes gather in an open batch, which is closed when a reader who has all others asks for it, or
when it is full: while nobody reads, a block that comes and goes costs nothing. Sequences of closed
batches are dense. A reader whose place is no longer among the last batches, or that never had one,
gets a snapshot, which stands for all up to its own sequence: nobody is waited for, and what is kept
is bounded by the cache itself.
"""

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from engines.kv_changes import Gathering, KvChange

_BATCHES = 1024
_NAMES = 1 << 17  # 2 MiB of them in the last batches
_MOST = 1 << 22  # names that a reader takes from one worker
_PART = 1 << 13  # names in one batch: 128 KiB, far below what the wire takes


@dataclass(frozen=True, slots=True)
class Batch:
    """Some changes in order; the parts of a snapshot share a sequence, and `more` follow."""

    epoch: int
    sequence: int
    changes: tuple[KvChange, ...]
    snapshot: bool = False
    more: bool = False


class KvLog:
    """The names of one engine in one epoch. What it is told twice it takes once."""

    def __init__(
        self, epoch: int, *, batches: int = _BATCHES, names: int = _NAMES, part: int = _PART
    ) -> None:
        self.epoch = epoch
        self.sequence = 0  # of the last closed batch
        self._kept_batches = batches
        self._kept_names = names
        self._part = part
        self._present: defaultdict[int, dict[bytes, None]] = defaultdict(dict)  # by tier
        self._open: defaultdict[int, Gathering] = defaultdict(Gathering)
        self._last: deque[Batch] = deque()
        self._held = 0  # names in them

    def tell(self, change: KvChange) -> None:
        """Take in what an engine tells."""
        if change.cleared:
            self._clear()
        present, opened = self._present[change.tier], self._open[change.tier]
        for name in change.removed:
            if name in present:
                del present[name]
                opened.remove(name)
                self._close_if_full()
        for name in change.stored:
            if name not in present:
                present[name] = None
                opened.store(name)
                self._close_if_full()

    def close(self) -> None:
        """End the open batch, if it has anything."""
        changes = [change for tier in self._open if (change := self._open[tier].take(tier))]
        if not changes:
            return
        self.sequence += 1
        self._last.append(Batch(self.epoch, self.sequence, tuple(changes)))
        self._held += _size(self._last[-1])
        while len(self._last) > self._kept_batches or self._held > self._kept_names:
            self._held -= _size(self._last.popleft())

    def after(self, sequence: int) -> Batch | None:
        """The closed batch that follows; None where it is not known any more."""
        place = sequence - (self.sequence - len(self._last))
        return self._last[place] if 0 <= place < len(self._last) else None

    def snapshot(self) -> Iterator[Batch]:
        """All names that there are now, in parts; one at least."""
        self.close()
        epoch, sequence, size = self.epoch, self.sequence, self._part
        parts = [
            KvChange(stored=names[start : start + size], tier=tier)
            for tier, present in self._present.items()
            for names in [tuple(present)]
            for start in range(0, len(names), size)
        ]
        last = parts.pop() if parts else KvChange()
        return iter([
            *(Batch(epoch, sequence, (part,), snapshot=True, more=True) for part in parts),
            Batch(epoch, sequence, (last,), snapshot=True),
        ])  # fmt: skip

    def _close_if_full(self) -> None:
        if sum(map(len, self._open.values())) >= self._part:
            self.close()

    def _clear(self) -> None:
        """Forget everything, so that whoever reads on gets a snapshot."""
        self._present.clear()
        self._open.clear()
        self._last.clear()
        self._held = 0
        self.sequence += 1


class KvReader:
    """One who follows a log, from behind `after` of its `epoch` if that is still known."""

    def __init__(self, log: KvLog, epoch: int, after: int) -> None:
        self._log = log
        knows = epoch == log.epoch and 0 < after <= log.sequence
        self._place = after if knows else None
        self._parts: Iterator[Batch] = iter(())

    def next(self) -> Batch | None:
        """What to tell it now; None if it has everything."""
        part = next(self._parts, None)
        if part is not None:
            return part
        log = self._log
        if self._place == log.sequence:
            log.close()
            if self._place == log.sequence:
                return None
        batch = None if self._place is None else log.after(self._place)
        if batch is None:
            self._parts = log.snapshot()
            self._place = log.sequence
            return next(self._parts)
        self._place = batch.sequence
        return batch


class Untrue(Exception):  # noqa: N818 - what a batch is
    """A batch does not follow from what was told before: the reader must ask for a snapshot."""


class Tail:
    """What a reader has of one epoch. It believes nothing that does not follow."""

    def __init__(self, epoch: int, *, most: int = _MOST) -> None:
        self.epoch = epoch
        self._most = most
        self._place: int | None = None  # the last sequence it has; None: it has nothing whole
        self._under_way: int | None = None  # the sequence of the snapshot that is being told
        self._names = 0

    @property
    def after(self) -> int:
        """What to ask for the rest with: 0 asks for a snapshot."""
        return self._place or 0

    def forget(self) -> None:
        """What it has does not hold: `after` asks for a snapshot."""
        self._place = None

    def restart(self) -> None:
        """The call it was told by is over: the rest of a snapshot will not come."""
        self._under_way = None

    def take(self, batch: Batch) -> list[KvChange]:
        """The changes of a batch, a snapshot's first part with all before cleared. Raises Untrue.

        After Untrue, and after a snapshot that is cut off, `after` asks for another one.
        """
        begins = batch.snapshot and self._under_way is None
        problem = self._problem(batch)
        self._place = self._under_way = None
        if begins:
            self._names = 0
        self._names += sum(len(change.stored) - len(change.removed) for change in batch.changes)
        if problem is None and not 0 <= self._names <= self._most:
            problem = f"{self._names} names"
        if problem is not None:
            raise Untrue(problem)
        if batch.more:
            self._under_way = batch.sequence
        else:
            self._place = batch.sequence
        return [KvChange(cleared=True), *batch.changes] if begins else list(batch.changes)

    def _problem(self, batch: Batch) -> str | None:
        place, under_way = self._place, self._under_way
        if batch.epoch != self.epoch:
            return f"epoch {batch.epoch:x} instead of {self.epoch:x}"
        if not batch.snapshot:
            follows = under_way is None and place is not None and batch.sequence == place + 1
            whole = follows and not batch.more
            return None if whole else f"batch {batch.sequence} where {place} was the last"
        if any(change.removed for change in batch.changes):
            return "a snapshot that removes"
        if under_way is None and place and batch.sequence <= place:
            return f"snapshot {batch.sequence} where {place} was the last"  # its last part again
        known = under_way in (None, batch.sequence)
        return None if known else f"a part of snapshot {batch.sequence} within {under_way}"


def _size(batch: Batch) -> int:
    return sum(len(change.removed) + len(change.stored) for change in batch.changes)
