"""What the engine tells of itself while it runs: events for the mirror, statistics for admission.

Its queues exist from the first generation on, so nothing is asked before.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from engines.kv_changes import Gathering, KvChange, KvListener
from engines.self_batching.stats import EngineStats
from engines.trtllm.calls import Calls
from engines.trtllm.events import Cleared, EventMirror, MirrorEvent
from engines.trtllm.poller import Poller, Record
from engines.trtllm.stats import read_stats
from kvcache.events import BlockStored


class Watch:
    """`events`, `stats`: which of the two the engine keeps. Lives on the event loop."""

    def __init__(
        self,
        calls: Calls,
        mirror: EventMirror,
        *,
        events: bool,
        stats: bool,
    ) -> None:
        self._calls = calls
        self._mirror = mirror
        self._gathering = Gathering()
        self._listener: KvListener | None = None
        self._wants = (events, stats)
        self._observed: Callable[[EngineStats], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._num_blocks: asyncio.Future[int] | None = None
        self._pollers: list[Poller] = []

    @property
    def kv_namespace(self) -> bytes:
        """Of the names it tells; empty where the engine keeps no events."""
        return self._mirror.namespace if self._wants[0] else b""

    def follow(self, listener: KvListener) -> None:
        """Tell of the blocks, as `KvSource` says."""
        if self._listener is not None:
            raise RuntimeError("the KV cache has a listener already")
        self._listener = listener
        listener(KvChange(stored=self._mirror.names))

    def start(self, observed: Callable[[EngineStats], None]) -> None:
        """Begin to ask. `observed` gets the newest statistics."""
        self._observed = observed
        self._loop = asyncio.get_running_loop()
        self._num_blocks = self._loop.create_future()
        events, stats = self._wants
        if events:
            self._poll(Poller(self._calls.events, partial(self._post, self._events), "kv-events"))
        if stats:
            self._poll(Poller(self._calls.stats, partial(self._post, self._stats), "stats"))

    async def num_blocks(self, timeout_s: float) -> int | None:
        """The KV blocks of the device, once told; None where it is not told in time."""
        if self._num_blocks is None or not self._pollers:
            return None
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._num_blocks), timeout_s)
        return None

    async def stop(self) -> None:
        """Ask no more. Idempotent."""
        pollers, self._pollers = self._pollers, []
        for poller in pollers:
            await asyncio.to_thread(poller.stop)

    def _poll(self, poller: Poller) -> None:
        self._pollers.append(poller)
        poller.start()

    def _post(self, take: Callable[[Sequence[Record]], None], batch: list[Record]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is gone
                self._loop.call_soon_threadsafe(take, batch)

    def _events(self, batch: Sequence[Record]) -> None:
        for record in batch:
            for event in self._mirror.read(record):
                if self._listener is not None:
                    self._gather(event, self._listener)
        change = self._gathering.take()
        if change is not None and self._listener is not None:
            self._listener(change)
        self._tell_blocks(self._mirror.num_blocks)

    def _gather(self, event: MirrorEvent, listener: KvListener) -> None:
        if isinstance(event, Cleared):
            self._gathering.take()
            listener(KvChange(cleared=True))
        elif isinstance(event, BlockStored):
            self._gathering.store(event.name)
        else:
            self._gathering.remove(event.name)

    def _stats(self, batch: Sequence[Record]) -> None:
        newest = read_stats(batch[-1])
        self._tell_blocks(newest.blocks_total)
        if self._observed is not None:
            self._observed(newest)

    def _tell_blocks(self, blocks: int | None) -> None:
        if blocks and self._num_blocks is not None and not self._num_blocks.done():
            self._num_blocks.set_result(blocks)
