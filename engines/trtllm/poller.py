"""Fetches events and statistics from the engine, in a thread and a loop of its own.

Each queue has one consumer and is emptied without waiting; the requests' loop is not disturbed.
"""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

_log = logging.getLogger(__name__)

_BATCH = 256
_SHORTEST_S, _LONGEST_S = 0.005, 0.02

Record = Mapping[str, Any]
Fetch = Callable[[], AsyncIterator[Record | str]]


class Poller:
    """Hands batches of records on, from its own thread. Start it after the first generation."""

    def __init__(self, fetch: Fetch, deliver: Callable[[list[Record]], None], name: str) -> None:
        self._fetch = fetch
        self._deliver = deliver
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"penstock-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch in hand. Idempotent; blocks, but not for ever."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        try:
            asyncio.run(self._poll())
        except Exception:  # noqa: BLE001 - whatever it is, placement gets worse and nothing fails
            _log.exception("no more is heard of the engine's %s", self._thread.name)

    async def _poll(self) -> None:
        pause_s = _SHORTEST_S
        while not self._stopping.is_set():
            batch = await self._batch()
            if batch:
                self._deliver(batch)
            if len(batch) < _BATCH:
                pause_s = _SHORTEST_S if batch else min(2 * pause_s, _LONGEST_S)
                await asyncio.sleep(pause_s)

    async def _batch(self) -> list[Record]:
        batch: list[Record] = []
        async for record in self._fetch():
            batch.append(json.loads(record) if isinstance(record, str) else record)
            if len(batch) == _BATCH:
                break
        return batch
