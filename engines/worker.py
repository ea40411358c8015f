"""Hosts any engine behind gRPC: one session for each gateway, one frame for each engine step.

    submits, cancels --> Session --> engine.generate, one small task per request
    StepFrame <--------- Session <-- what those tasks have got since the last frame

Events of a gateway that reads slowly merge, as they do for a slow reader in one process: what waits
here is bounded by the tokens themselves. A session that breaks aborts all its requests: the gateway
goes on elsewhere, from what it has seen.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engines.api import Engine, EngineLoad, RequestId, TokenEvent, TokenStream
from engines.errors import EngineDied, EngineError, EngineUnavailable, InvalidRequest
from engines.wire.channels import SERVICE, Tls, bind, server
from engines.wire.events import delta_message, facts_message, failure_message, load_message
from engines.wire.facts import WorkerFacts
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.wire.requests import request_of

_log = logging.getLogger(__name__)
_LOAD_EVERY_S = 0.02  # a load that changed without any token is told this late


class WorkerServer:
    """Serves a started engine. It never stops the engine: that is its owner's."""

    def __init__(
        self, engine: Engine, facts: WorkerFacts, *, token: str, tls: Tls | None = None
    ) -> None:
        self._engine = engine
        self._facts = facts
        self._tls = tls
        self._server = server(token)
        self._health = health.aio.HealthServicer()
        self._sessions: set[_Session] = set()
        self._numbers = 0  # sessions so far
        self._draining = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

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
        for session in self._sessions:
            session.wake()

    async def drained(self) -> None:
        """Wait for a drain, and then for the last request."""
        await self._draining.wait()
        await self._health.enter_graceful_shutdown()
        await self._empty.wait()

    async def stop(self, grace_s: float) -> None:
        """End the sessions within `grace_s` seconds. Idempotent."""
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
                "Session": grpc.stream_stream_rpc_method_handler(
                    self._session, pb.CommandFrame.FromString, _serialized
                ),
            },
        )

    async def _info(self, _: pb.InfoRequest, __: object) -> pb.WorkerInfo:
        return facts_message(self._facts)

    async def _drain(self, _: pb.DrainRequest, __: object) -> pb.DrainReply:
        self.drain()
        return pb.DrainReply()

    async def _session(
        self, commands: AsyncIterator[pb.CommandFrame], context: Any
    ) -> AsyncIterator[pb.StepFrame]:
        self._numbers += 1
        session = _Session(self._numbers, self._engine, self._draining.is_set, self._note_ended)
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

    async def _obey(self, session: "_Session", commands: AsyncIterator[pb.CommandFrame]) -> None:
        try:
            async for frame in commands:
                session.obey(frame)
                if session.busy:
                    self._empty.clear()
        except Exception as error:  # noqa: BLE001 - grpc has no type for it
            _log.warning("a command frame cannot be read: %s", type(error).__name__)
            session.unreadable = True
        finally:
            session.close()  # also where the gateway has hung up

    def _note_ended(self) -> None:
        if not any(session.busy for session in self._sessions):
            self._empty.set()


@dataclass(slots=True)
class _Pending:
    """Tokens of a choice that the gateway has not got, and where in its log they begin."""

    position: int
    event: TokenEvent


class _Session:
    """One gateway's requests on this worker, and what it has not been told yet."""

    def __init__(
        self,
        number: int,
        engine: Engine,
        draining: Callable[[], bool],
        on_idle: Callable[[], None],
    ) -> None:
        self._number = number
        self._engine = engine
        self._draining = draining
        self._on_idle = on_idle
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._streams: dict[int, TokenStream] = {}
        self._logs: dict[int, dict[int, int]] = {}  # handle -> choice -> tokens of it so far
        self._pending: dict[tuple[int, int], _Pending] = {}
        self._failures: list[pb.Delta] = []
        self._awake = asyncio.Event()
        self._closed = False
        self.unreadable = False  # the gateway sent bytes that are no command frame

    @property
    def busy(self) -> bool:
        """Whether any request of it has not ended."""
        return bool(self._tasks)

    def wake(self) -> None:
        """Have a frame sent now."""
        self._awake.set()

    def obey(self, frame: pb.CommandFrame) -> None:
        """Start and cancel what a gateway asks."""
        for submit in frame.submits:
            self._submit(submit)
        for cancel in frame.cancels:
            self._cancel(cancel.handle, cancel.choice if cancel.HasField("choice") else None)

    async def frames(self) -> AsyncIterator[pb.StepFrame]:
        """One after each step that brought something, and one where only the load has changed."""
        number, told = 0, None
        while not self._closed:
            load, draining = self._engine.load(), self._draining()
            if draining and not (self._tasks or self._pending or self._failures):
                return
            if self._pending or self._failures or told != (load, draining):
                number += 1
                changed = told is None or told[0] != load
                yield self._frame(number, load if changed else None, draining=draining)
                told = load, draining
            self._awake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), _LOAD_EVERY_S)

    def close(self) -> None:
        """Abort everything. Idempotent."""
        self._closed = True
        self.wake()
        for task in self._tasks.values():
            task.cancel()

    def _frame(self, number: int, load: EngineLoad | None, *, draining: bool) -> pb.StepFrame:
        pending, self._pending = self._pending, {}
        failures, self._failures = self._failures, []
        deltas = [
            delta_message(handle, one.position, one.event) for (handle, _), one in pending.items()
        ]
        frame = pb.StepFrame(number=number, deltas=deltas + failures, draining=draining)
        if load is not None:
            frame.load.CopyFrom(load_message(load))
        return frame

    def _submit(self, submit: pb.Submit) -> None:
        handle = submit.handle
        if self._closed or handle in self._tasks:
            return
        try:
            if self._draining():
                raise EngineUnavailable("this worker is draining")
            # Ids are the gateway's own: here they only must differ from all others.
            name = RequestId(f"{self._number}.{handle}")
            request = replace(request_of(submit.request), id=name)
            stream = self._engine.generate(request)
        except EngineError as error:
            self._fail(handle, error)
            return
        except ValueError as error:
            self._fail(handle, InvalidRequest(str(error), param="request"))
            return
        self._logs[handle] = {
            choice: len(tokens or ()) for choice, tokens in enumerate(request.logs)
        }
        self._streams[handle] = stream
        self._tasks[handle] = asyncio.create_task(self._pump(handle, stream))

    def _cancel(self, handle: int, choice: int | None) -> None:
        task, stream = self._tasks.get(handle), self._streams.get(handle)
        if task is None or stream is None:
            return  # it has ended meanwhile
        if choice is None:
            task.cancel()
        else:
            self._pending.pop((handle, choice), None)
            stream.end_choice(choice)

    async def _pump(self, handle: int, stream: TokenStream) -> None:
        try:
            async for event in stream:
                self._put(handle, event)
        except EngineError as error:
            self._fail(handle, error)
        except Exception as error:  # noqa: BLE001 - an engine that raises what it may not has failed
            self._fail(handle, EngineDied(f"the engine raised {type(error).__name__}"))
        finally:
            await stream.aclose()
            self._forget(handle)

    def _put(self, handle: int, event: TokenEvent) -> None:
        log = self._logs[handle]
        position = log.get(event.choice, 0)
        log[event.choice] = position + len(event.tokens)
        before = self._pending.get((handle, event.choice))
        if before is None:
            self._pending[handle, event.choice] = _Pending(position, event)
        else:
            before.event.merge(event)
        self.wake()

    def _fail(self, handle: int, error: EngineError) -> None:
        self._failures.append(failure_message(handle, error))
        self.wake()

    def _forget(self, handle: int) -> None:
        del self._tasks[handle], self._streams[handle], self._logs[handle]
        if self._closed:
            self._pending.clear()
        self.wake()
        if not self._tasks:
            self._on_idle()


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()
