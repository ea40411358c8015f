"""Hosts any engine behind gRPC: one session for each gateway, one frame for each engine step.

    submits, cancels --> Session --> engine.generate, one small task per request
    StepFrame <--------- Session <-- what those tasks have got since the last frame

A session that breaks aborts its requests, and the gateway goes on elsewhere from what it has seen;
those that are kept go on for a while, for another session to attach to (worker_runs.py).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engines.api import Engine, RequestId
from engines.wire.channels import SERVICE, Tls, bind, server
from engines.wire.events import facts_message
from engines.wire.facts import WorkerFacts
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.worker_kv import KvServicer
from engines.worker_runs import Keeping, Runs
from engines.worker_session import Session

_log = logging.getLogger(__name__)
_KEEPING = Keeping()


class WorkerServer:
    """Serves a started engine. It never stops the engine: that is its owner's.

    Kept requests outlive their session, and their end, as `keeping` says.
    """

    def __init__(
        self,
        engine: Engine,
        facts: WorkerFacts,
        *,
        token: str,
        tls: Tls | None = None,
        keeping: Keeping = _KEEPING,
    ) -> None:
        self._engine = engine
        self._facts = facts
        self._tls = tls
        self._server = server(token)
        self._health = health.aio.HealthServicer()
        self._kv = KvServicer(engine, facts.epoch)
        self._sessions: set[Session] = set()
        self._draining = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._runs = Runs(engine, keeping, self._empty.set)

    async def start(self, address: str) -> str:
        """Listen; returns the address, with the port that was chosen. Raises what `bind` raises."""
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        bound = bind(self._server, address, self._tls)
        await self._server.start()
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return bound

    def drain(self) -> None:
        """Take no new requests from now on."""
        self._draining.set()
        self._kv.close()
        for session in self._sessions:
            session.wake()

    async def drained(self) -> None:
        """Wait for a drain, and then for the last request."""
        await self._draining.wait()
        await self._health.enter_graceful_shutdown()
        await self._empty.wait()

    async def stop(self, grace_s: float) -> None:
        """End what runs, tell what it has said, and end the sessions within `grace_s` seconds.

        Whatever a gateway was not told would be computed again elsewhere. Idempotent.
        """
        self._kv.close()  # its calls have no end of their own
        self._runs.close()
        await self._server.stop(grace_s)

    def _handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Info": grpc.unary_unary_rpc_method_handler(
                    self._info, pb.InfoRequest.FromString, _serialized
                ),
                "Drain": grpc.unary_unary_rpc_method_handler(
                    self._drain, pb.DrainRequest.FromString, _serialized
                ),
                "Find": grpc.unary_unary_rpc_method_handler(
                    self._find, pb.FindRequest.FromString, _serialized
                ),
                "Session": grpc.stream_stream_rpc_method_handler(
                    self._session, pb.CommandFrame.FromString, _serialized
                ),
                "KvEvents": grpc.unary_stream_rpc_method_handler(
                    self._kv.events, pb.KvEventsRequest.FromString, _serialized
                ),
            },
        )

    async def _info(self, _: pb.InfoRequest, __: object) -> pb.WorkerInfo:
        return facts_message(self._facts)

    async def _drain(self, _: pb.DrainRequest, __: object) -> pb.DrainReply:
        self.drain()
        return pb.DrainReply()

    async def _find(self, asked: pb.FindRequest, _: object) -> pb.FindReply:
        found = self._runs.find(RequestId(asked.id))
        if found is None:
            return pb.FindReply()
        attempt, context = found
        return pb.FindReply(found=True, attempt=attempt, context=context)

    async def _session(
        self, commands: AsyncIterator[pb.CommandFrame], context: Any
    ) -> AsyncIterator[pb.StepFrame]:
        session = Session(self._runs, self._engine.load, self._draining.is_set)
        self._sessions.add(session)
        # Cancelled while suspended at `yield`, a servicer gets GeneratorExit; cancelled in an await
        # of its own, CancelledError; the callback comes in both cases.
        context.add_done_callback(lambda _: session.close())
        obeying = asyncio.create_task(self._obey(session, commands))
        try:
            async for frame in session.frames():
                yield frame
            if session.unreadable:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, "a command frame cannot be read"
                )
        finally:
            obeying.cancel()
            session.close()
            self._sessions.discard(session)

    async def _obey(self, session: Session, commands: AsyncIterator[pb.CommandFrame]) -> None:
        try:
            async for frame in commands:
                session.obey(frame)
                if self._runs.busy:
                    self._empty.clear()
        except Exception as error:  # noqa: BLE001 - grpc has no type for it
            _log.warning("a command frame cannot be read: %s", type(error).__name__)
            session.unreadable = True
        finally:
            session.close()  # also where the gateway has hung up


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
