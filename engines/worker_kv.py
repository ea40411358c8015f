"""Tells gateways which KV blocks a worker has: its side of the KvEvents call.

    engine --(each step)--> KvLog --(each reader at its own pace)--> KvBatch

Readers are woken at most every 20 ms: what changes meanwhile goes out as one message. A router does
not see better by more of them, and each costs some 100 us on both sides.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from engines.api import Engine
from engines.kv_changes import KvChange, KvSource
from engines.kv_log import KvLog, KvReader
from engines.wire.kv import batch_message
from engines.wire.pb import penstock_engine_pb2 as pb

_EVERY_S = 0.02


class KvServicer:
    """Answers KvEvents for one engine in one epoch."""

    def __init__(self, engine: Engine, epoch: int) -> None:
        self._source = engine if isinstance(engine, KvSource) and engine.kv_namespace else None
        self._log = KvLog(epoch)
        self._readers: set[asyncio.Event] = set()  # set where there is something for them
        self._followed = False
        self._closed = False

    async def events(self, request: pb.KvEventsRequest, context: Any) -> AsyncIterator[pb.KvBatch]:
        """Everything after what the reader has, for as long as it listens."""
        if self._source is None:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "this worker's engine tells no KV events"
            )
        self._follow()
        reader = KvReader(self._log, request.epoch, request.after)
        awake = asyncio.Event()
        self._readers.add(awake)
        try:
            while not self._closed:
                batch = reader.next()
                if batch is None:
                    await awake.wait()
                    await asyncio.sleep(_EVERY_S)
                    awake.clear()
                else:
                    yield batch_message(batch)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this worker is draining")
        finally:
            self._readers.discard(awake)

    def close(self) -> None:
        """End the calls: nobody routes to a worker that takes nothing. Idempotent."""
        self._closed = True
        self._wake()

    def _follow(self) -> None:
        """Have the engine tell, from the first time that somebody wants to know."""
        if self._source is not None and not self._followed:
            self._followed = True
            self._source.follow_kv(self._take)

    def _take(self, change: KvChange) -> None:
        self._log.tell(change)
        self._wake()

    def _wake(self) -> None:
        for awake in self._readers:
            awake.set()
