"""The connection to one SMG server: its calls, and the ways out of them."""

import asyncio
import contextlib
import secrets
from typing import Any

import grpc
import grpc.aio

from engines.api import GenerationRequest
from engines.errors import (
    EngineDied,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    RequestFailed,
)
from engines.smg.answer import Answer
from engines.smg.facts import ModelInfo
from engines.smg.messages import Phrases
from engines.smg.stubs import Stubs
from engines.trtllm.sampling import Stage
from engines.wire.channels import Tls, Unsafe, is_local

_CONNECT_S = 10.0
_ANSWER_S = 5.0
_LARGEST_MESSAGE = 64 << 20  # bytes
# No keepalive: a server that was not told to bear pings hangs up on who sends them, and silence is
# found by asking for its health.
_OPTIONS = (
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ("grpc.max_send_message_length", _LARGEST_MESSAGE),
    ("grpc.use_local_subchannel_pool", 1),
)
_GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})


class Server:
    """`HOST:PORT` or `unix:PATH`. Beyond this machine it needs TLS. Raises Unsafe."""

    def __init__(self, address: str, stubs: Stubs, tls: Tls | None = None) -> None:
        self._address = address
        self._pb = stubs.pb
        self._channel = _channel(address, tls)
        self._rpc = stubs.rpc.TrtllmServiceStub(self._channel)
        self._calls = 0
        # Of this connection alone: the server keeps calls by id, whoever made them.
        self._name = secrets.token_hex(8)
        self._leaving: set[asyncio.Task[None]] = set()

    async def connect(self) -> ModelInfo:
        """What the server tells of its model. Raises EngineUnavailable where it is not well."""
        try:
            told: ModelInfo = await self._rpc.GetModelInfo(
                self._pb.GetModelInfoRequest(), timeout=_CONNECT_S, wait_for_ready=True
            )
            trouble = await self.trouble()
        except grpc.aio.AioRpcError as error:
            raise EngineUnavailable(
                f"{self._address} does not answer as trtllm-serve --grpc: {error.code().name}"
            ) from error
        if trouble:
            raise EngineUnavailable(f"the server at {self._address} is not well: {trouble}")
        return told

    async def trouble(self) -> str:
        """What is wrong with the engine there; empty where nothing is. Raises AioRpcError."""
        told = await self._rpc.HealthCheck(self._pb.HealthCheckRequest(), timeout=_ANSWER_S)
        return "" if told.status == "OK" else told.status or "no status"

    def begin(self, phrases: Phrases, stage: Stage, request: GenerationRequest) -> "Call":
        """Ask for a stage. Raises Unsupported."""
        self._calls += 1
        call_id = f"{self._name}-{self._calls}"
        message = phrases.message(stage, request, call_id)
        end = phrases.end if phrases.ends_itself(stage) else None
        answer = Answer(call_id, phrases.facts.limits.vocab_size, end)
        return Call(answer, self._rpc.Generate(message), self)

    def abandon(self, call_id: str, stream: Any) -> None:
        """End a call from this side, in a task.

        Abort goes first and the stream is cancelled after it. A servicer that is cancelled while it
        stands at a yield gets GeneratorExit; TensorRT-LLM's then forgets the id and aborts nothing.
        """
        task = asyncio.get_running_loop().create_task(self._abandon(call_id, stream))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def verdict(self, error: grpc.aio.AioRpcError) -> EngineError:
        """What a failed call means: for the request alone, or (EngineDied) for the engine."""
        code, words = error.code(), error.details() or error.code().name
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return InvalidRequest(words, param="sampling")
        if code not in _GONE:
            try:
                trouble = await self.trouble()
            except grpc.aio.AioRpcError as silent:
                trouble = silent.code().name
            if not trouble:
                return RequestFailed(words)
            words = trouble
        return EngineDied(f"the server at {self._address} failed: {words}")

    async def close(self) -> None:
        """End what is being abandoned, then the connection. Idempotent."""
        if self._leaving:
            await asyncio.wait(self._leaving)
        await self._channel.close()

    async def _abandon(self, call_id: str, stream: Any) -> None:
        try:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._rpc.Abort(self._pb.AbortRequest(request_id=call_id), timeout=_ANSWER_S)
        finally:
            stream.cancel()


class Call:
    """One Generate call."""

    def __init__(self, answer: Answer, stream: Any, server: Server) -> None:
        self.answer = answer
        self._stream = stream
        self._server = server
        self._left = False

    async def read(self) -> bool:
        """Add what comes next to the answer; False at the end.

        Raises Lie, RequestFailed, AioRpcError; CancelledError once it was left.
        """
        response = await self._stream.read()
        if response is grpc.aio.EOF:
            return False
        self.answer.take(response)
        return True

    def leave(self) -> None:
        """Want no more of it; a no-op where the server has ended it. Idempotent."""
        if not (self._left or self._stream.done()):
            self._left = True
            self._server.abandon(self.answer.call_id, self._stream)


def _channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    if tls is None:
        if not is_local(address):
            raise Unsafe(f"{address} is beyond this machine: put TLS in front of the server there")
        return grpc.aio.insecure_channel(address, _OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        tls.ca.read_bytes(), tls.key.read_bytes(), tls.certificate.read_bytes()
    )
    return grpc.aio.secure_channel(address, credentials, _OPTIONS)
