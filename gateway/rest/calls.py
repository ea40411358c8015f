"""From an HTTP request to a running call and its response: the steps of every generating route."""

import asyncio
import re
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

from fastapi import Request, Response

from gateway.dispatch import Call
from gateway.exchange import Exchange
from gateway.lifecycle import Lifecycle, Serving
from gateway.replies import json_response
from gateway.rest.body import BodyReader
from gateway.rest.client_watch import ClientWatch
from gateway.rest.sse import Pace, TokenStreamResponse
from openai_compat.body import parse_body
from openai_compat.job import Job, Prepared
from openai_compat.models import find
from openai_compat.options import requested_model
from openai_compat.purpose import require_generation
from openai_compat.served import CallContext, ServedModel
from openai_compat.vector_job import VectorJob

T = TypeVar("T")
Lowering = Callable[[dict[str, Any], ServedModel, CallContext], T]
Lower = Lowering[Job]
Make = Lowering[Prepared]

# Larger bodies are parsed and tokenised off the loop: 1 MiB of text takes about half a second.
_INLINE_BYTES = 8192
_LOWERING_THREADS = 2
_NAMEABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MAX_NAMED = 32


class CallRunner:
    """Turns a request into a response with one lowering function per route."""

    def __init__(self, lifecycle: Lifecycle, reader: BodyReader, pace: Pace) -> None:
        self._lifecycle = lifecycle
        self._reader = reader
        self._pace = pace
        self._threads = ThreadPoolExecutor(_LOWERING_THREADS, thread_name_prefix="lowering")

    async def run(self, request: Request, lower: Lower) -> Response:
        """Every refusal happens in here, before the first byte of an answer."""
        serving = self._lifecycle.serving()
        serving.dispatcher.check()
        async with self._lifecycle.arrival():
            raw = await self._reader.read(request.headers, request.receive)
        exchange = Exchange.of(request.scope)
        job = await self._lowered(raw, serving, exchange, _generating(lower))
        # Lowering may have waited for a thread: the engine may be draining by now.
        call = await self._lifecycle.serving().dispatcher.start(job, exchange)
        headers = _notes(job.ignored)
        if job.stream:
            return TokenStreamResponse(call, self._pace, headers)
        return json_response(await _answer(call, request), headers=headers)

    async def vectors(self, request: Request, lower: Lowering[VectorJob]) -> Response:
        """For a route that is answered from vectors; like `run`, without a stream."""
        serving = self._lifecycle.serving()
        serving.dispatcher.check()
        async with self._lifecycle.arrival():
            raw = await self._reader.read(request.headers, request.receive)
        exchange = Exchange.of(request.scope)
        job = await self._lowered(raw, serving, exchange, lower)
        vectors = self._lifecycle.serving().vectors
        async with ClientWatch(request.receive):
            body = await vectors.answer(job, exchange)
        return json_response(body, headers=_notes(job.ignored))

    async def prepare(self, request: Request, make: Make) -> Response:
        """For a route that needs the model's text side and not its engine."""
        serving = self._lifecycle.serving()
        async with self._lifecycle.arrival():
            raw = await self._reader.read(request.headers, request.receive)
        prepared = await self._lowered(raw, serving, Exchange.of(request.scope), make)
        return json_response(prepared.body, headers=_notes(prepared.ignored))

    async def _lowered(
        self, raw: bytes, serving: Serving, exchange: Exchange, lower: Lowering[T]
    ) -> T:
        exchange.call_id = secrets.token_hex(12)
        context = CallContext(
            # Never the client's x-request-id: two calls may carry the same one.
            id=exchange.call_id,
            now=int(datetime.now(UTC).timestamp()),
            seed=secrets.randbits(63),
            cache_salt=exchange.salt,
        )

        def parse_and_lower() -> T:
            body = parse_body(raw)
            model = find(serving.models, requested_model(body))
            exchange.model = model.name
            return lower(body, model, context)

        if len(raw) <= _INLINE_BYTES:
            return parse_and_lower()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, parse_and_lower)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _generating(lower: Lower) -> Lower:
    """The lowering of a route whose model must be one that generates."""

    def checked(body: dict[str, Any], model: ServedModel, context: CallContext) -> Job:
        require_generation(model)
        return lower(body, model, context)

    return checked


async def _answer(call: Call, request: Request) -> bytes:
    try:
        async with ClientWatch(request.receive):
            return await call.answer()
    finally:
        await call.aclose()


def _notes(ignored: Iterable[str]) -> dict[str, str]:
    # Names come from the client: only what is harmless in a header is repeated.
    named = [name for name in ignored if _NAMEABLE.fullmatch(name)][:_MAX_NAMED]
    return {"x-ignored-params": ", ".join(named)} if named else {}
