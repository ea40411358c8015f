"""Which blocks are in the host's memory and on the disk, by name: the books of both tiers. Pure.

    device --keep--> host --(second chance)--> disk --(second chance)--> gone
              ^        |                        |
              +-match--+<-------fetched---------+

A tier keeps what it gave: a name stands for a content, so that a block which comes back a second
time is not moved again. Within the host's tier are the contents themselves, opaque here. What is to
be done at the disk is a list of tasks, which somebody takes, does in order, and answers each write.

Children leave the device before their parents, and so enter here before them: second chance, which
goes by the order of entering, eats chains from their ends too. A block whose parent went first is
never found, never used, and goes the next time round.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from kvcache.naming import BlockName

DEVICE, HOST, DISK = 0, 1, 2  # the tiers of KvChange

Content = TypeVar("Content")


class Told(Protocol):
    """Hears of changes."""

    def __call__(self, tier: int, name: BlockName, /, *, there: bool) -> None:
        """Whether a tier has a block from now on."""


@dataclass(frozen=True, slots=True)
class Write(Generic[Content]):
    """Put a block on the disk; to be answered by `written` or `lost`."""

    name: BlockName
    content: Content


@dataclass(frozen=True, slots=True)
class Remove:
    """Take a block from the disk, if it is there."""

    name: BlockName


@dataclass(slots=True)
class TierCounters:
    """Blocks, in total since the start."""

    saved: int = 0  # from the device to the host
    host_evicted: int = 0
    restored: int = 0  # from the host to the device
    written: int = 0  # to the disk, for certain
    disk_evicted: int = 0
    disk_hits: int = 0  # that prompts go on with, and only the disk has: once for each prompt
    fetched: int = 0  # from the disk to the host
    lost: int = 0  # not on the disk any more, or not to be written
    corrupt: int = 0  # of those, found not to be what was written
    dropped: int = 0  # not written, because the disk is too slow


class SecondChance:
    """At most `size` names; of those that are not used again, the first to come is the first out.

    A name that was used since it came, or since it was last spared, is spared once more: recency
    within a factor of two for one bit and no work at each use (Corbato's clock).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._used: dict[BlockName, bool] = {}  # in the order of coming, which is the clock's

    def __len__(self) -> int:
        return len(self._used)

    def __contains__(self, name: BlockName) -> bool:
        return name in self._used

    def __iter__(self) -> Iterator[BlockName]:
        """From the next to be looked at on."""
        return iter(self._used)

    def use(self, name: BlockName) -> None:
        """Spare a name that is there, once."""
        if name in self._used:
            self._used[name] = True

    def add(self, name: BlockName) -> list[BlockName]:
        """Take a name in; returns those that had to go, itself where there is no room at all."""
        if name in self._used:
            self._used[name] = True
            return []
        gone = []
        while self._used and len(self._used) >= self.size:
            oldest = next(iter(self._used))
            if self._used.pop(oldest):
                self._used[oldest] = False  # to the back
            else:
                gone.append(oldest)
        if not self.size:
            return [name]
        self._used[name] = False
        return gone

    def discard(self, name: BlockName) -> None:
        """Forget a name, if it is there."""
        self._used.pop(name, None)


class DiskTier(Generic[Content]):
    """Books of at most `size` files, and the tasks that make it so.

    At most `most_writing` blocks wait to be written, but at the end: they take memory that no
    budget counts.
    """

    def __init__(self, size: int, most_writing: int, counters: TierCounters) -> None:
        self.size = size
        self.writing: dict[BlockName, Content] = {}  # on their way: these can still be had at once
        self.told: Told | None = None
        self._counters = counters
        self._most_writing = most_writing
        self._names = SecondChance(size)
        self._unanswered = 0  # writes
        self._tasks: list[Write[Content] | Remove] = []

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: BlockName) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[BlockName]:
        """From the next to be looked at on."""
        return iter(self._names)

    def use(self, name: BlockName) -> None:
        """Spare a block that is there, once."""
        self._names.use(name)

    def take(self, name: BlockName, content: Content) -> None:
        """A block has left memory: write it, if it is not there and the disk keeps up."""
        if name in self._names or not self.size:
            return
        if self._unanswered >= self._most_writing:
            self._counters.dropped += 1
        else:
            self.write(name, content)

    def write(self, name: BlockName, content: Content) -> None:
        """Write a block that is not there."""
        self.writing[name] = content
        self._unanswered += 1
        self._tasks.append(Write(name, content))
        self._enter(name)

    def written(self, name: BlockName) -> None:
        """A write is done."""
        self._unanswered -= 1
        self._counters.written += name in self._names
        self.writing.pop(name, None)

    def unwritten(self, name: BlockName) -> None:
        """A write has failed, or was not tried."""
        self._unanswered -= 1
        self.writing.pop(name, None)
        self.lost(name)

    def lost(self, name: BlockName, *, corrupt: bool = False) -> None:
        """A block is not there, or not as it was written."""
        self._counters.corrupt += corrupt
        if name in self._names:
            self._counters.lost += 1
            self._names.discard(name)
            self._tasks.append(Remove(name))  # whatever is there under that name
            self._tell(name, there=False)

    def found(self, names: Iterable[BlockName]) -> None:
        """What is there at the start, from the first that may go on."""
        for name in names:
            self._enter(name)

    def take_tasks(self) -> list[Write[Content] | Remove]:
        """What is to be done, in order."""
        tasks, self._tasks = self._tasks, []
        return tasks

    def _enter(self, name: BlockName) -> None:
        self._tell(name, there=True)
        for gone in self._names.add(name):
            self._counters.disk_evicted += 1
            self.writing.pop(gone, None)
            self._tasks.append(Remove(gone))
            self._tell(gone, there=False)

    def _tell(self, name: BlockName, *, there: bool) -> None:
        if self.told is not None:
            self.told(DISK, name, there=there)


class Tiers(Generic[Content]):
    """`host` blocks in memory, over `disk` blocks in files; all blocks are of one size."""

    def __init__(self, host: int, disk: int = 0, *, most_writing: int = 64) -> None:
        self.counters = TierCounters()
        self.disk: DiskTier[Content] = DiskTier(disk, most_writing, self.counters)
        self._host = SecondChance(host)
        self._contents: dict[BlockName, Content] = {}  # of all that are in memory
        self._told: Told | None = None

    @property
    def has_contents(self) -> bool:
        """Whether anything can match."""
        return bool(self._contents or self.disk.writing)

    @property
    def host_blocks(self) -> int:
        return len(self._host)

    def names(self, tier: int) -> tuple[BlockName, ...]:
        """What is in a tier, in the order in which it will be looked at to be evicted."""
        return tuple(self._host if tier == HOST else self.disk)

    def tell(self, told: Told) -> None:
        """Have every change told from now on."""
        self._told = self.disk.told = told

    def wants(self, name: BlockName) -> bool:
        """Whether the content of a block that leaves the device is to be kept."""
        self._host.use(name)
        return name not in self._host and self._host.size > 0

    def keep(self, name: BlockName, content: Content) -> None:
        """A block has left the device."""
        self.counters.saved += 1
        self._hold(name, content)

    def match(self, names: Iterable[BlockName]) -> list[Content]:
        """The contents of the longest run of blocks that are in memory."""
        found: list[Content] = []
        for name in names:
            content = self._contents.get(name, self.disk.writing.get(name))
            if content is None:
                break
            self._host.use(name)
            self.disk.use(name)
            found.append(content)
        return found

    def beyond(self, names: Sequence[BlockName]) -> list[BlockName]:
        """Which of a run would have to come from the disk: at most as many as memory holds."""
        missing: list[BlockName] = []
        for name in names[: self._host.size]:
            if name in self._contents or name in self.disk.writing:
                continue
            if name not in self.disk:
                break
            missing.append(name)
        return missing

    def fetched(self, name: BlockName, content: Content) -> None:
        """A block was read, and is what was written."""
        self.counters.fetched += 1
        self.disk.use(name)
        self._hold(name, content)
        self._host.use(name)  # somebody waits for it

    def flush(self, device: Mapping[BlockName, Content]) -> None:
        """Write what is in memory only, and then in none: blocks of the device, then the host's.

        As many as fit, those first that were used last.
        """
        last = {name: self._contents[name] for name in reversed(self.names(HOST))}
        left = [each for each in {**device, **last}.items() if each[0] not in self.disk]
        for name, content in left[: self.disk.size]:
            self.disk.write(name, content)

    def _hold(self, name: BlockName, content: Content) -> None:
        """Into memory; what must leave it goes on to the disk."""
        if name in self._contents:
            return
        self._contents[name] = content
        self._tell(name, there=True)
        for gone in self._host.add(name):
            self.counters.host_evicted += 1
            left = self._contents.pop(gone)
            self._tell(gone, there=False)
            self.disk.take(gone, left)

    def _tell(self, name: BlockName, *, there: bool) -> None:
        if self._told is not None:
            self._told(HOST, name, there=there)
