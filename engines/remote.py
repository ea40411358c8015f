"""An engine in another process: the port over one session with one worker.

    generate, abort --> outbox --> Session: one frame for all that was asked meanwhile
    mailboxes <----------------- Session: one frame for each step of the engine

A kept request (`GenerationRequest.kept`) outlives this engine on its worker: others attach to it.

One session, one epoch, no reconnect: when the session breaks, or the worker says what cannot be,
every open stream fails once with EngineDied and this engine is over; its owner makes a new one.
What a worker says is checked before anybody reads it (wire/checking.py).
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from engines.admittance import check_request
from engines.api import (
    EngineInfo,
    EngineLoad,
    GenerationRequest,
    Kept,
    RequestId,
    TokenStream,
)
from engines.errors import EngineDied, EngineError, EngineUnavailable, InvalidRequest, RequestFailed
from engines.kv_feed import KvFeed
from engines.mailbox import Mailbox
from engines.wire.channels import DRAIN, FIND, INFO, SESSION, Tls, channel, metadata
from engines.wire.checking import Lie, Open, checked, is_sound
from engines.wire.events import error_of, facts_of, load_of
from engines.wire.facts import WorkerFacts
from engines.wire.kept import kept_of
from engines.wire.pb import penstock_engine_pb2 as pb
from engines.wire.requests import request_message

_log = logging.getLogger(__name__)
_CONNECT_S = 10.0
_FIND_S = 0.5
_Call = Any  # grpc.aio.StreamStreamCall: CommandFrames there, StepFrames back
_NO_LOAD = EngineLoad(0, 0, 0, 0, 0)


class RemoteEngine:
    """Implements `Engine` and `Keeper` by a worker at `unix:PATH` or `HOST:PORT`.

    `on_death` is called once, on the event loop, when the session is over without `stop`.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str,
        tls: Tls | None = None,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._address = address
        self._token = token
        self._tls = tls
        self._on_death = on_death
        self._channel: grpc.aio.Channel | None = None
        self._facts: WorkerFacts | None = None
        self.kv: KvFeed | None = None  # from the end of `start` on; follows nothing until asked
        self._load = _NO_LOAD
        self._sent = 0  # sequences asked for since the last load was told
        self._open: dict[int, Open] = {}
        self._handles: dict[RequestId, int] = {}
        self._last_handle = 0
        self._outbox = pb.CommandFrame()
        self._asked = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._over: EngineError | None = EngineUnavailable("the engine is not started")
        self.draining = False

    @property
    def facts(self) -> WorkerFacts:
        """What the worker serves. Raises EngineUnavailable before the end of `start`."""
        if self._facts is None:
            raise EngineUnavailable("the engine is not started")
        return self._facts

    @property
    def info(self) -> EngineInfo:
        return self.facts.info

    async def start(self) -> None:
        """Connect and read the facts. Raises EngineUnavailable where nobody answers rightly."""
        if self._channel is not None:
            raise RuntimeError("an engine is started once; make a new one")
        self._channel = channel(self._address, self._tls)
        ask = self._channel.unary_unary(
            INFO, pb.InfoRequest.SerializeToString, pb.WorkerInfo.FromString
        )
        try:
            told = await ask(
                pb.InfoRequest(),
                metadata=metadata(self._token),
                timeout=_CONNECT_S,
                wait_for_ready=True,
            )
            self._facts = facts_of(told)
        except grpc.aio.AioRpcError as error:
            await self._channel.close()
            raise EngineUnavailable(
                f"the worker at {self._address} does not answer: {error.code().name}"
            ) from None
        except ValueError as error:
            await self._channel.close()
            raise EngineUnavailable(
                f"the worker at {self._address} makes no sense: {error}"
            ) from None
        self.kv = KvFeed(self._channel, self._facts, self._token)
        self._over = None
        talk = self._channel.stream_stream(
            SESSION, pb.CommandFrame.SerializeToString, pb.StepFrame.FromString
        )
        session = talk(metadata=metadata(self._token))
        self._tasks = [
            asyncio.create_task(self._listen(session)),
            asyncio.create_task(self._tell(session)),
        ]

    def generate(self, request: GenerationRequest) -> Mailbox:
        if request.id in self._handles:
            raise InvalidRequest("a request with this id is already open", param="id")
        if self.draining:
            raise EngineUnavailable("the worker is draining")
        message = self._message(request)
        handle, box = self._enter(request)
        self._outbox.submits.add(handle=handle, request=message)
        self._sent += request.n
        return box

    async def find(self, request_id: RequestId) -> Kept | None:
        """What the worker keeps of a request; None where it keeps nothing, or is gone.

        Raises EngineUnavailable where it does not say so in time: it may keep it all the same.
        """
        if self._channel is None or self._over is not None:
            return None
        ask = self._channel.unary_unary(
            FIND, pb.FindRequest.SerializeToString, pb.FindReply.FromString
        )
        try:
            told = await ask(
                pb.FindRequest(id=request_id), metadata=metadata(self._token), timeout=_FIND_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise EngineUnavailable("the worker does not say what it keeps") from None
            return None
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            return None  # the channel was closed under the call
        try:
            return kept_of(told.context, told.attempt) if told.found else None
        except ValueError:
            return None  # of another version

    def attach(self, request: GenerationRequest, *, watch: bool = False) -> Mailbox:
        """Go on with a kept request of another session, behind what `request.emitted` says.

        `request.kept` says with which attempt; `watch`: beside whoever has it. Its stream raises
        RequestUnknown where the worker cannot tell all of the rest, RequestTaken where some other
        attempt was as great, also later.
        """
        self._message(replace(request, emitted=()))  # all of it may be known but its end
        handle, box = self._enter(request)
        # Of a choice that has ended all is known: 1, since 0 would say that nothing is.
        positions = [1 if log is None else len(log) for log in request.logs]
        attempt = 0 if request.kept is None or watch else request.kept.attempt
        self._outbox.attaches.add(
            handle=handle, id=request.id, attempt=attempt, positions=positions
        )
        for choice, log in enumerate(request.logs):
            if log is None:
                self._outbox.cancels.add(handle=handle, choice=choice)
        return box

    def detach(self, stream: TokenStream) -> None:
        """Hear no more on a stream of a kept request, which goes on for a while. It ends now."""
        known = (handle for handle, each in self._open.items() if each.box is stream)
        handle = next(known, None)
        if handle is None:
            return
        self._outbox.cancels.add(handle=handle, detach=True)
        self._asked.set()
        self._open[handle].box.fail(EngineUnavailable("the reader has left"))
        self._forget_done(handle)

    def _message(self, request: GenerationRequest) -> pb.Request:
        """The request as a message. Raises what `generate` may raise at once."""
        if self._over is not None:
            raise type(self._over)(str(self._over))
        check_request(request, self.info, self.facts.limits)
        try:
            return request_message(request)
        except ValueError as error:
            raise InvalidRequest(f"a value is out of range: {error}", param="request") from None

    def _enter(self, request: GenerationRequest) -> tuple[int, Mailbox]:
        """Open a stream under a handle of its own."""
        self._last_handle += 1
        handle = self._last_handle
        box = Mailbox(request, lambda _, choice: self._abort(handle, choice))
        self._open[handle] = Open(box, [len(log or ()) for log in request.logs])
        self._handles[request.id] = handle
        self._asked.set()
        self._idle.clear()
        return handle, box

    def load(self) -> EngineLoad:
        return self._load

    @property
    def sent(self) -> int:
        """Sequences asked for that the load does not tell of yet."""
        return self._sent

    async def drain(self) -> None:
        """Ask the worker to take no more and to end when it is empty."""
        if self._channel is None or self._over is not None:
            return
        ask = self._channel.unary_unary(
            DRAIN, pb.DrainRequest.SerializeToString, pb.DrainReply.FromString
        )
        self.draining = True
        with contextlib.suppress(grpc.aio.AioRpcError):
            await ask(pb.DrainRequest(), metadata=metadata(self._token), timeout=_CONNECT_S)

    async def stop(self, grace_s: float) -> None:
        """End the session, not the worker; running requests may end within `grace_s` seconds."""
        stopping = EngineUnavailable("the engine is stopping")
        self._over = self._over or stopping
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_s)
        self._on_death = None
        self._end(stopping)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.kv is not None:
            await self.kv.stop()
        if self._channel is not None:
            await self._channel.close()

    # -- to the worker

    def _abort(self, handle: int, choice: int | None) -> None:
        if handle not in self._open:
            return
        self._outbox.cancels.add(handle=handle, choice=choice)
        self._asked.set()
        self._forget_done(handle)

    async def _tell(self, session: _Call) -> None:
        """Send what was asked, as often as the session takes it."""
        with contextlib.suppress(
            grpc.aio.AioRpcError, asyncio.InvalidStateError
        ):  # told by _listen
            while True:
                await self._asked.wait()
                self._asked.clear()
                frame, self._outbox = self._outbox, pb.CommandFrame()
                await session.write(frame)

    # -- from the worker

    async def _listen(self, session: _Call) -> None:
        number = 0
        try:
            async for frame in session:
                number += 1
                self._take(frame, number)
        except grpc.aio.AioRpcError as error:
            why = f"{error.code().name}: {error.details()}"
            self._lost(EngineDied(f"the session with the worker broke: {why}"))
        except (Lie, ValueError) as error:
            _log.error("the worker at %s lied: %s", self._address, error)
            session.cancel()
            self._lost(EngineDied("the worker gave what cannot be"))
        else:
            over = EngineUnavailable if self.draining else EngineDied
            self._lost(over("the worker has ended the session"))

    def _take(self, frame: pb.StepFrame, number: int) -> None:
        if frame.number != number:
            raise Lie(f"frame {frame.number} came as number {number}")
        if frame.HasField("load"):
            self._load, self._sent = load_of(frame.load), 0
        self.draining |= frame.draining
        for delta in frame.deltas:
            self._deliver(delta)

    def _deliver(self, delta: pb.Delta) -> None:
        handle = delta.handle
        known = self._open.get(handle)
        if known is None:
            if not 0 < handle <= self._last_handle:
                raise Lie(f"there is no request {handle}")
            return  # closed here while the step ran
        if delta.HasField("failure"):
            known.box.fail(error_of(delta.failure))
        else:
            event = checked(known, delta, self.info.vocab_size)
            if is_sound(event):
                known.box.push(event)
            else:
                self._outbox.cancels.add(handle=handle)
                self._asked.set()
                known.box.fail(RequestFailed("the engine computed numbers that are none"))
        self._forget_done(handle)

    def _forget_done(self, handle: int) -> None:
        known = self._open.get(handle)
        if known is None or not known.box.done:
            return
        del self._open[handle]
        request_id = known.box.request.id
        if self._handles.get(request_id) == handle:  # else another attempt has its place
            del self._handles[request_id]
        if not self._open:
            self._idle.set()

    def _lost(self, error: EngineError) -> None:
        _log.warning("the worker at %s is lost: %s", self._address, error)
        self._end(error)
        if self._on_death is not None:
            on_death, self._on_death = self._on_death, None
            on_death(error)

    def _end(self, error: EngineError) -> None:
        """Fail every stream, and refuse what comes."""
        self._over = error
        self._load = replace(self._load, alive=False)  # the last that was told, for who asks why
        left, self._open, self._handles = list(self._open.values()), {}, {}
        for known in left:
            known.box.fail(type(error)(str(error)))
        self._idle.set()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
