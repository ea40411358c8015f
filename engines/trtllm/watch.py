"""What the engine tells of itself while it runs: events for the mirror, statistics for admission.

Its queues exist from the first generation on, so nothing is asked before.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from engines.self_batching.stats import EngineStats
from engines.trtllm.calls import Calls
from engines.trtllm.events import EventMirror, MirrorListener
from engines.trtllm.poller import Poller, Record
from engines.trtllm.stats import read_stats


class Watch:
    """`events`, `stats`: which of the two the engine keeps. Lives on the event loop."""

    def __init__(
        self,
        calls: Calls,
        mirror: EventMirror,
        listener: MirrorListener | None,
        *,
        events: bool,
        stats: bool,
    ) -> None:
        self._calls = calls
        self._mirror = mirror
        self._listener = listener
        self._wants = (events, stats)
        self._observed: Callable[[EngineStats], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._num_blocks: asyncio.Future[int] | None = None
        self._pollers: list[Poller] = []

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
                    self._listener(event)
        self._tell_blocks(self._mirror.num_blocks)

    def _stats(self, batch: Sequence[Record]) -> None:
        newest = read_stats(batch[-1])
        self._tell_blocks(newest.blocks_total)
        if self._observed is not None:
            self._observed(newest)

    def _tell_blocks(self, blocks: int | None) -> None:
        if blocks and self._num_blocks is not None and not self._num_blocks.done():
            self._num_blocks.set_result(blocks)
