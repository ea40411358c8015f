"""Follows the KV cache of a worker from a gateway: the `KvSource` over the KvEvents call.

A call that breaks is made again from where it was; where a batch does not follow from what came
before, nothing of it is believed, and a snapshot is asked for. What is told is a hint: while the
call is broken the last that was heard stands.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from engines.kv_changes import KvListener
from engines.kv_log import Tail, Untrue
from engines.wire.channels import KV_EVENTS, metadata
from engines.wire.facts import WorkerFacts
from engines.wire.kv import batch_of
from engines.wire.pb import penstock_engine_pb2 as pb

_log = logging.getLogger(__name__)
_SHORTEST_S, _LONGEST_S = 0.1, 5.0


class KvFeed:
    """Implements `KvSource` by a worker at the other end of a channel, which it does not own."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        facts: WorkerFacts,
        token: str,
        *,
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._channel = channel
        self._facts = facts
        self._token = token
        self._rest = rest
        self._following: asyncio.Task[None] | None = None

    @property
    def kv_namespace(self) -> bytes:
        return self._facts.kv_namespace

    def follow_kv(self, listener: KvListener) -> None:
        if self._following is not None:
            raise RuntimeError("the KV cache has a listener already")
        self._following = asyncio.create_task(self._follow(listener))

    async def stop(self) -> None:
        """Tell nothing more. Idempotent."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self, listener: KvListener) -> None:
        """Call after call, until the worker says that it tells nothing."""
        tail, pause_s = Tail(self._facts.epoch), _SHORTEST_S
        while True:
            before = tail.after
            try:
                await self._read(tail, listener)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    _log.warning("a worker tells no KV events after all: %s", error.details())
                    return
                _log.info("KV events have broken off: %s", error.code().name)
            except (Untrue, ValueError) as error:
                _log.warning("KV events are asked for anew: %s", error)
                tail.forget()
            if tail.after != before:
                pause_s = _SHORTEST_S  # it has told something that holds
            await self._rest(pause_s * (1 + random.random()))
            pause_s = min(2 * pause_s, _LONGEST_S)

    async def _read(self, tail: Tail, listener: KvListener) -> None:
        """One call, to its end. Raises what it ends with, Untrue and ValueError."""
        tail.restart()
        ask = self._channel.unary_stream(
            KV_EVENTS, pb.KvEventsRequest.SerializeToString, pb.KvBatch.FromString
        )
        call = ask(
            pb.KvEventsRequest(epoch=tail.epoch, after=tail.after), metadata=metadata(self._token)
        )
        try:
            async for message in call:
                for change in tail.take(batch_of(message)):
                    listener(change)
        finally:
            call.cancel()
