"""The thread that does what there is to do at a folder of blocks, so that no step waits for it.

Reads go first: requests wait for them. What is written or removed keeps its order, and nobody reads
a block while its write is on the way, since its content is then still in memory (kvcache.tiers).
"""

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engines.step import BlockBytes
from engines.tiers.block_file import Corrupt
from engines.tiers.folder import BlockFolder
from kvcache.naming import BlockName
from kvcache.tiers import Remove, Write

_log = logging.getLogger(__name__)
_FIRST, _IN_ORDER = 0, 1
_JOIN_S = 2.0  # beyond the deadline: one file is being written


@dataclass(frozen=True, slots=True)
class Read:
    """Bring a block into memory."""

    name: BlockName


@dataclass(frozen=True, slots=True)
class Order:
    """Write down in which order blocks may go."""

    names: tuple[BlockName, ...]


@dataclass(frozen=True, slots=True)
class WasWritten:
    """The answer to a write."""

    name: BlockName
    done: bool


@dataclass(frozen=True, slots=True)
class WasRead:
    """The answer to a read: no content is a miss."""

    name: BlockName
    content: BlockBytes | None
    corrupt: bool = False


class _Stop:
    """The last task."""


DiskAnswer = WasWritten | WasRead
DiskTask = Read | Write[BlockBytes] | Remove | Order


class Disk:
    """Does tasks at a folder, which is its own; each read and write is answered once."""

    def __init__(self, folder: BlockFolder, answer: Callable[[DiskAnswer], None]) -> None:
        self._folder = folder
        self._answer = answer
        self._count = itertools.count()
        self._tasks: queue.PriorityQueue[tuple[int, int, DiskTask | _Stop]]
        self._tasks = queue.PriorityQueue()
        self._deadline = float("inf")  # for writes
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="penstock-kv-disk", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether anything will be answered."""
        return self._thread.is_alive()

    def do(self, task: DiskTask) -> None:
        """Have a task done; any thread may ask, but one keeps its order."""
        self._put(_FIRST if isinstance(task, Read) else _IN_ORDER, task)

    def stop(self, within_s: float) -> None:
        """Do what is asked for, but begin no write after so many seconds; blocks until then.

        A thread that is stuck in the file system is left: it is a daemon.
        """
        self._deadline = time.monotonic() + within_s
        self._put(_IN_ORDER, _Stop())
        self._thread.join(within_s + _JOIN_S)

    def _put(self, first: int, task: DiskTask | _Stop) -> None:
        self._tasks.put((first, next(self._count), task))

    def _run(self) -> None:
        while not isinstance(task := self._tasks.get()[-1], _Stop):
            match task:
                case Read(name):
                    self._answer(self._read(name))
                case Write(name, content):
                    self._answer(WasWritten(name, self._written(name, content)))
                case Remove(name):
                    self._folder.remove(name)
                case Order(names):
                    self._tried(partial(self._folder.write_order, names))
        self._folder.close()

    def _read(self, name: BlockName) -> WasRead:
        try:
            return WasRead(name, self._folder.read(name))
        except Corrupt as reason:
            _log.warning("block %s is not used and removed: %s", name.hex(), reason)
            return WasRead(name, None, corrupt=True)
        except OSError as error:
            _log.warning("block %s cannot be read: %s", name.hex(), error.strerror)
            return WasRead(name, None)

    def _written(self, name: BlockName, content: BlockBytes) -> bool:
        in_time = time.monotonic() < self._deadline
        return in_time and self._tried(partial(self._folder.write, name, content))

    def _tried(self, write: Callable[[], None]) -> bool:
        """Whether a write was done. A full disk is said once, and once more when it is not."""
        try:
            write()
        except OSError as error:
            if not self._failing:
                _log.warning("KV blocks cannot be written, and are lost: %s", error.strerror)
            self._failing = True
            return False
        if self._failing:
            _log.warning("KV blocks can be written again")
        self._failing = False
        return True
