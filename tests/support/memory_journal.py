"""The journal in memory, with the faults that one elsewhere can have."""

from dataclasses import dataclass, field, replace
from time import monotonic

from gateway.durable.journal import Entry, Fenced, JournalAway, Lost, Name

_NO_OWNER = 10**12


@dataclass
class MemoryJournal:
    """Implements Journal; what ends by time does not end here."""

    entries: dict[Name, Entry] = field(default_factory=dict)
    fences: dict[Name, int] = field(default_factory=dict)
    away: bool = False
    loses_answer: bool = False  # the next call is done, and its answer lost

    def _answer(self):
        if self.loses_answer:
            self.loses_answer = False
            raise JournalAway("the answer was lost")

    def _check_there(self):
        if self.away:
            raise JournalAway("away")

    def _owned(self, name, fence):
        standing = self.fences.get(name, 0)
        if standing > fence:
            raise Fenced("a later owner")
        if standing < fence:
            raise Lost("nothing, or an earlier owner")
        return self.entries[name]

    async def begin(self, name, record, fence):
        self._check_there()
        if self.fences.get(name, 0) > fence:
            raise Fenced("a later owner")
        self.fences[name] = fence
        self.entries[name] = Entry(fence, record, [])
        self._answer()

    async def append(self, name, fence, at, chunks):
        self._check_there()
        entry = self._owned(name, fence)
        have = len(entry.chunks)
        if have < at:
            raise Lost("a part of the log is gone")
        self.entries[name] = replace(entry, chunks=[*entry.chunks, *chunks[have - at :]])
        self._answer()

    async def read(self, name, at=0, most=10_000):
        self._check_there()
        entry = self.entries.get(name)
        if entry is None:
            return None
        record = b"" if at else entry.record
        return replace(
            entry, fence=self.fences[name], record=record, chunks=list(entry.chunks[at : at + most])
        )

    async def claim(self, name, fence):
        self._check_there()
        if self.fences.get(name) != fence or self.entries[name].ending:
            return False
        self.fences[name] += 1
        self._answer()
        return True

    async def note_gaps(self, name, fence, gaps):
        self._check_there()
        self.entries[name] = replace(self._owned(name, fence), gaps=tuple(gaps))

    async def end(self, name, fence, ending, keep_s):
        assert keep_s > 0
        self._check_there()
        self.entries[name] = replace(self._owned(name, fence), ending=ending)
        self._answer()

    async def forget(self, name):
        self._check_there()
        self.entries.pop(name, None)
        self.fences[name] = _NO_OWNER
        self._answer()

    def empty(self):
        """As FLUSHALL does."""
        self.entries.clear()
        self.fences.clear()


@dataclass
class MemoryLeases:
    """Implements Leases, by a clock of its own."""

    lease_s: float = 0.1
    ends: dict[Name, float] = field(default_factory=dict)
    wishes: set[Name] = field(default_factory=set)
    away: bool = False

    def _check_there(self):
        if self.away:
            raise JournalAway("away")

    async def renew(self, names):
        self._check_there()
        for name in names:
            self.ends[name] = monotonic() + self.lease_s
        return frozenset(self.wishes & set(names))

    async def release(self, names):
        self._check_there()
        for name in names:
            self.ends[name] = 0.0

    async def due(self):
        self._check_there()
        return [name for name, end in self.ends.items() if end <= monotonic()]

    async def done(self, name):
        self._check_there()
        self.wishes.discard(name)
        self.ends.pop(name, None)

    async def wish(self, name):
        self._check_there()
        self.wishes.add(name)
