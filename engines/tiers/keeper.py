"""The engine thread's side of slower tiers: has files written and read, and requests wait for them.

    inbox --request--> hold ------(nothing to read)------> scheduler
                        |                                      ^
                      reads at the disk --answers--> hear --let in

A request waits while the blocks that its prompt goes on with are read, 2 s at most. What is told
about it meanwhile (that it is aborted, that its id is in use again) waits behind it, in order.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from engines.api import GenerationRequest, RequestId
from engines.sharing import place_of
from engines.step import BlockBytes
from engines.tiers.disk import Disk, DiskAnswer, Order, Read, WasWritten
from engines.tiers.folder import BlockFolder
from kvcache.events import BlockEvent, BlockRemoved
from kvcache.naming import BlockName, prompt_names
from kvcache.pool import BlockPool
from kvcache.tiers import DISK, TierCounters, Tiers, Write

_log = logging.getLogger(__name__)
_PATIENCE_S = 2.0
_FLUSH_S = 2.0  # for what is in memory only, at the end
_FLUSH_BYTES = 2 << 30  # more is not digested in that time
_ORDER_AFTER = 256  # blocks written
_REPORT_S = 60.0

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True)
class TierState:
    """How full the slower tiers are, and what they have done."""

    host_blocks: int
    disk_blocks: int
    block_bytes: int
    counters: TierCounters


@dataclass(slots=True)
class _Held(Generic[Message]):
    """A request that waits, with what was told of it since."""

    messages: list[Message]
    missing: set[BlockName]
    until: float


class Keeper(Generic[Message]):
    """Owns `tiers`, of blocks of `block_bytes`, and the folder for which memory has no room.

    After `start` one thread uses it, and when that has ended whoever closes it.
    """

    def __init__(
        self, tiers: Tiers[BlockBytes], block_bytes: int, folder: BlockFolder | None = None
    ) -> None:
        self.tiers = tiers
        self.block_bytes = block_bytes
        self._folder = folder
        self._disk: Disk | None = None
        self._pool: BlockPool | None = None
        self._namespace = b""
        self._held: dict[RequestId, _Held[Message]] = {}
        self._readers: dict[BlockName, list[RequestId]] = {}  # of blocks that are being read
        self._device: dict[BlockName, BlockBytes] = {}  # at the end
        self._since_order = 0
        self._reported, self._report_at = replace(tiers.counters), time.monotonic() + _REPORT_S

    @property
    def state(self) -> TierState:
        """O(1); from any thread."""
        tiers = self.tiers
        return TierState(tiers.host_blocks, len(tiers.disk), self.block_bytes, tiers.counters)

    def start(
        self, pool: BlockPool, namespace: bytes, answer: Callable[[DiskAnswer], None]
    ) -> None:
        """Begin, for a pool and the namespace of its names; `answer` is called from a thread."""
        self._pool, self._namespace = pool, namespace
        if self._folder is not None:
            self._disk = Disk(self._folder, answer)

    def holds(
        self, message: Message, request_id: RequestId, request: GenerationRequest | None = None
    ) -> bool:
        """Whether a message must wait; it then comes back from `hear` or `overdue`.

        A new request waits for what the disk has of it, and all else behind a request that does.
        """
        held = self._held.get(request_id)
        if held is not None:
            held.messages.append(message)
            return True
        return request is not None and self._fetch(request, message)

    def _fetch(self, request: GenerationRequest, message: Message) -> bool:
        if self._disk is None or not self._disk.alive:
            return False
        missing = set(self._on_disk_only(request)) if len(self.tiers.disk) else set()
        if not missing:
            return False
        self.tiers.counters.disk_hits += len(missing)
        until = time.monotonic() + _PATIENCE_S
        self._held[request.id] = _Held([message], missing, until)
        for name in missing:
            if name not in self._readers:
                self._disk.do(Read(name))
            self._readers.setdefault(name, []).append(request.id)
        return True

    def hear(self, answer: DiskAnswer) -> list[Message]:
        """Take in what the disk answers; returns the messages that wait no longer, in order."""
        name = answer.name
        if isinstance(answer, WasWritten):
            (self.tiers.disk.written if answer.done else self.tiers.disk.unwritten)(name)
            released = []
        else:
            if answer.content is None:
                self.tiers.disk.lost(name, corrupt=answer.corrupt)
            else:
                self.tiers.fetched(name, answer.content)
            released = list(self._released(name))
        self.hand_over()
        return released

    def overdue(self) -> list[Message]:
        """The messages of those that have waited long enough: their blocks are computed again."""
        now = time.monotonic()
        late = [each for each, held in self._held.items() if held.until <= now]
        return [message for each in late for message in self._held.pop(each).messages]

    def patience_s(self) -> float | None:
        """When to ask for the next that is overdue; None while nobody waits."""
        if not self._held:
            return None
        return max(min(held.until for held in self._held.values()) - time.monotonic(), 0.0)

    def hand_over(self) -> None:
        """Have the disk do what has come up."""
        if time.monotonic() > self._report_at:
            self._report()
        tasks = self.tiers.disk.take_tasks()
        if self._disk is None:
            return
        for task in tasks:
            self._disk.do(task)
            self._since_order += isinstance(task, Write)
        if self._since_order >= _ORDER_AFTER:
            self._write_order(self._disk)

    def save_device(self, read: Callable[[Sequence[int]], Sequence[BlockBytes]]) -> None:
        """At the end: take what the device alone has, those last that were used first."""
        pool = self._pool
        if self._disk is None or pool is None:
            return
        leaving: list[tuple[BlockName, int]] = []

        def hear(event: BlockEvent) -> None:
            if isinstance(event, BlockRemoved) and event.block is not None:
                leaving.append((event.name, event.block))

        pool.subscribe(hear)
        pool.clear()
        alone = [each for each in reversed(leaving) if each[0] not in self.tiers.disk]
        taken = alone[: _FLUSH_BYTES // self.block_bytes]
        contents = read([block for _, block in taken])
        self._device = {name: kept for (name, _), kept in zip(taken, contents, strict=True)}

    def close(self) -> None:
        """Write what is in memory only, within 2 s, and let go of the folder. Idempotent."""
        self._report()
        disk, self._disk = self._disk, None
        if disk is None:
            return
        self.tiers.flush(self._device)
        for task in self.tiers.disk.take_tasks():
            disk.do(task)
        self._write_order(disk)
        disk.stop(_FLUSH_S)

    def _report(self) -> None:
        """Log what the tiers have and have done, if that has changed."""
        self._report_at = time.monotonic() + _REPORT_S
        counters = self.tiers.counters
        if counters != self._reported:
            self._reported = replace(counters)
            done = ", ".join(f"{name} {count}" for name, count in asdict(counters).items())
            state = self.state
            _log.info(
                "KV tiers: %d blocks in memory, %d on the disk, of %d bytes; %s",
                state.host_blocks, state.disk_blocks, state.block_bytes, done,
            )  # fmt: skip

    def _write_order(self, disk: Disk) -> None:
        self._since_order = 0
        disk.do(Order(self.tiers.names(DISK)))

    def _on_disk_only(self, request: GenerationRequest) -> Iterator[BlockName]:
        """Names of blocks that admission would take if they were in memory."""
        if self._pool is None or request.needs_every_row:
            return
        size = self._pool.block_size
        space, turn = place_of(self._namespace, request, size)
        for log in set(request.logs) - {None}:
            tokens = (request.prompt + (log or ()))[:-1]
            hit = len(self._pool.match(space, np.array(tokens, np.int32), turn))
            yield from self.tiers.beyond(prompt_names(space, tokens, size, turn)[hit:])

    def _released(self, name: BlockName) -> Iterator[Message]:
        for request_id in self._readers.pop(name, ()):
            held = self._held.get(request_id)
            if held is not None:
                held.missing.discard(name)
                if not held.missing:
                    del self._held[request_id]
                    yield from held.messages
